//! Where everything runs that is not the stream: the pages, looks at everything, what is shown.
//!
//! Owns that runtime. The stream has the program's own, of one thread: what it hands on from task to task would otherwise wake
//! threads all the time, and cost more than it does. So nothing else may work there for long.

use tokio::runtime::{Builder, Handle, Runtime};

/// Two threads, so that a page is answered while something else is worked out. Ends with whoever holds it, without waiting for what runs there.
#[derive(Debug)]
pub(super) struct Aside(Option<Runtime>);

impl Aside {
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start() -> std::io::Result<(Self, Handle)> {
        let runtime =
            Builder::new_multi_thread().worker_threads(2).thread_name("aside").enable_all().build()?;
        let handle = runtime.handle().clone();
        Ok((Self(Some(runtime)), handle))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
