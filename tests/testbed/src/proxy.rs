//! A TCP proxy in front of a server, for tests of a bad network.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Forwards 127.0.0.1:[`port`](Self::port) to a server, until told otherwise.
///
/// Dropping it refuses new connections and ends the open ones.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    target: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides are told.
    Reset,
    /// It stays open, and nothing ever comes through it again.
    Silence,
}

#[derive(Debug)]
struct Shared {
    /// A connection ends when this moves.
    cuts: watch::Sender<u64>,
    silent: watch::Sender<bool>,
    /// Connections made before this many losses are lost.
    losses: watch::Sender<u64>,
    /// What may still pass before the next loss.
    until_loss: Mutex<Option<u64>>,
    /// What may pass through each connection before it ends, and how it does.
    each: watch::Sender<Option<(u64, End)>>,
    /// What may still pass before the next cut.
    budget: Mutex<Option<u64>>,
    connections: Mutex<JoinSet<()>>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("could not listen")?;
        let mut proxy = Self {
            address: listener.local_addr()?,
            target,
            shared: Arc::new(Shared {
                cuts: watch::Sender::new(0),
                silent: watch::Sender::new(false),
                losses: watch::Sender::new(0),
                until_loss: Mutex::new(None),
                each: watch::Sender::new(None),
                budget: Mutex::new(None),
                connections: Mutex::new(JoinSet::new()),
            }),
            listening: None,
        };
        proxy.listen(listener);
        Ok(proxy)
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The address of a database through the proxy, as the user `postgres`.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@{}/{database}", self.address)
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        let mut connections = self.shared.connections();
        while connections.try_join_next().is_some() {}
        connections.len()
    }

    /// Resets every open connection on both sides; they are gone on return. New ones work.
    pub async fn cut(&self) {
        let mut open = std::mem::take(&mut *self.shared.connections());
        self.shared.cut();
        while open.join_next().await.is_some() {}
    }

    /// While on, nothing passes: open connections stay open, new ones are accepted, and both
    /// hear nothing. What was sent meanwhile arrives when it goes off.
    pub fn blackhole(&self, on: bool) {
        self.shared.silent.send_replace(on);
    }

    /// Lets `count` more bytes pass; then every connection that is open by then is lost, once: it stays open, and nothing ever
    /// comes through it again, no end either. New ones work.
    pub fn lose_after_bytes(&self, count: u64) {
        *self.shared.until_loss.lock().unwrap_or_else(PoisonError::into_inner) = Some(count);
    }

    /// From now on, every connection ends after so many bytes of its own; those that are open have had theirs. `None`: no more do.
    pub fn end_each(&self, after: Option<(u64, End)>) {
        self.shared.each.send_replace(after);
    }

    /// Leads to another server from now on, as a name or an address that was moved does; open connections end.
    pub async fn lead_to(&mut self, target: SocketAddr) -> Result<()> {
        self.refuse(true).await?;
        self.target = target;
        self.cut().await;
        self.refuse(false).await
    }

    /// While on, new connections are refused; open ones work. In force on return.
    pub async fn refuse(&mut self, on: bool) -> Result<()> {
        match (on, self.listening.take()) {
            (true, Some(listening)) => {
                listening.abort();
                // Its listener is closed once the task is over; the error is "cancelled".
                drop(listening.await);
            }
            (false, None) => {
                let listener = TcpListener::bind(self.address).await.context("could not listen again")?;
                self.listen(listener);
            }
            (_, unchanged) => self.listening = unchanged,
        }
        Ok(())
    }

    /// Lets `count` more bytes pass, both directions and all connections together, then resets
    /// every connection, once.
    pub fn cut_after_bytes(&self, count: u64) {
        *self.shared.budget() = Some(count);
    }

    fn listen(&mut self, listener: TcpListener) {
        let (shared, target) = (Arc::clone(&self.shared), self.target);
        self.listening = Some(tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((client, _)) => {
                        // Subscribed before it can be in the way of a cut, or that waits for ever.
                        let cuts = shared.cuts.subscribe();
                        let task = Arc::clone(&shared).forward(client, target, cuts);
                        shared.connections().spawn(task);
                    }
                    // The client left before it was accepted.
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        }));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
        self.shared.connections().abort_all();
    }
}

impl Shared {
    fn connections(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn budget(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// One connection, from accepting it to its end.
    async fn forward(self: Arc<Self>, client: TcpStream, target: SocketAddr, mut cuts: watch::Receiver<u64>) {
        let server = tokio::select! {
            server = self.connect(target) => server,
            _ = cuts.changed() => {
                drop(client.set_zero_linger());
                return;
            }
        };
        // The client sees its connection close, as with a server that is not there.
        let Ok(server) = server else { return };
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        let born = *self.losses.borrow();
        let passed = Arc::<AtomicU64>::default();
        let mut up = Pump { from: client_read, to: server_write, born, passed: Arc::clone(&passed) };
        let mut down = Pump { from: server_read, to: client_write, born, passed };
        let is_over = tokio::select! {
            ended = async { tokio::try_join!(up.run(&self), down.run(&self)) } => ended.is_ok(),
            _ = cuts.changed() => false,
        };
        if !is_over {
            // Without lingering, closing sends a reset.
            drop(up.to.as_ref().set_zero_linger());
            drop(down.to.as_ref().set_zero_linger());
        }
    }

    async fn connect(&self, target: SocketAddr) -> io::Result<TcpStream> {
        self.audible().await;
        let server = TcpStream::connect(target).await?;
        server.set_nodelay(true)?;
        Ok(server)
    }

    /// Waits out a blackhole.
    async fn audible(&self) {
        // The sender is in `self`: it cannot be gone.
        drop(self.silent.subscribe().wait_for(|silent| !silent).await);
    }

    /// Counts bytes towards the next loss.
    fn pass(&self, count: usize) {
        let mut left = self.until_loss.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = left.as_mut() {
            *bytes = bytes.saturating_sub(count as u64);
            if *bytes == 0 {
                *left = None;
                self.losses.send_modify(|losses| *losses += 1);
            }
        }
    }

    /// How many of `wanted` bytes may pass, and whether the cut comes after them.
    fn take(&self, wanted: usize) -> (usize, bool) {
        let mut budget = self.budget();
        let Some(left) = budget.as_mut() else {
            return (wanted, false);
        };
        let allowed = usize::try_from(*left).unwrap_or(usize::MAX).min(wanted);
        *left -= allowed as u64;
        let is_spent = *left == 0;
        if is_spent {
            *budget = None;
        }
        (allowed, is_spent)
    }
}

/// One direction of a connection.
#[derive(Debug)]
struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    /// How many losses there were when the connection was made.
    born: u64,
    /// Bytes of this connection, in both directions.
    passed: Arc<AtomicU64>,
}

impl Pump {
    async fn run(&mut self, shared: &Shared) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = self.from.read(&mut buffer).await?;
            shared.audible().await;
            shared.pass(count);
            let passed = self.passed.fetch_add(count as u64, Ordering::Relaxed);
            let end = shared.each.borrow().filter(|(limit, _)| passed >= *limit).map(|(_, end)| end);
            if end == Some(End::Reset) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if end.is_some() || *shared.losses.borrow() > self.born {
                return std::future::pending().await;
            }
            if count == 0 {
                return self.to.shutdown().await;
            }
            let (allowed, is_last) = shared.take(count);
            self.to.write_all(buffer.get(..allowed).unwrap_or_default()).await?;
            if is_last {
                shared.cut();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
    }
}
