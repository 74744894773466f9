//! demo
pub(super) async fn demo(_once: bool) -> anyhow::Result<()> {
    Ok(())
}
