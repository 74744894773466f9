//! The pieces of a batch that is too large to hold, written to the mirror as they come.
//!
//! Owns how they are sent: the next one is on its way while the server writes the one before, so that it never waits for us. The server
//! works them off in their order. Begins the transaction of the batch, and does not end it. Contains no SQL.

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::mpsc;

use super::apply::Applier;
use super::own::Handed;
use crate::error::Result;
use crate::mirror;
use crate::sql::TouchedFrom;
use crate::stage::Part;
use crate::target::{Target, checkpoint};

/// How many are sent and not answered: each is held here until then, for it may have to be sent once more.
const AHEAD: usize = 2;

/// What was handed in.
pub(super) enum Next {
    /// May be written while another one is.
    Piece(Part),
    Other(Handed),
}

impl From<Handed> for Next {
    fn from(handed: Handed) -> Self {
        match handed {
            Handed::Part(part) if part.end.is_none() && part.requests.is_empty() => Self::Piece(part),
            other => Self::Other(other),
        }
    }
}

impl Applier {
    /// Writes `piece`, and those that follow it, to our own tables alone. Gives what came after them; `None` where nothing comes any more.
    pub(super) async fn apply_pieces(
        &mut self,
        piece: Part,
        parts: &mut mpsc::Receiver<Handed>,
    ) -> Result<Option<Handed>> {
        self.begin_pieces().await?;
        let Self { target, since, .. } = self;
        let target = &*target;
        let mut sent = FuturesOrdered::new();
        let mut next = Some(piece);
        let after = loop {
            if let Some(piece) = next.take() {
                if let Some(since) = since {
                    since.note(&piece);
                }
                if mirror::is_prepared(target, &piece) {
                    sent.push_back(write(target, piece));
                } else {
                    // What has to be prepared would be overtaken, and would fail with what is on its way.
                    settle_all(target, &mut sent).await?;
                    write_alone(target, &piece, None).await?;
                }
            }
            tokio::select! {
                biased;
                Some((piece, written)) = sent.next(), if !sent.is_empty() => {
                    settle(target, piece, written, &mut sent).await?;
                }
                handed = parts.recv(), if sent.len() < AHEAD => match handed.map(Next::from) {
                    Some(Next::Piece(piece)) => next = Some(piece),
                    Some(Next::Other(other)) => break Some(other),
                    None => break None,
                },
            }
        };
        settle_all(target, &mut sent).await?;
        Ok(after)
    }

    /// One part of a batch that is too large to hold: only our own tables are written yet.
    pub(super) async fn apply_piece(&mut self, part: &Part) -> Result<()> {
        self.begin_pieces().await?;
        write_alone(&self.target, part, None).await
    }

    async fn begin_pieces(&mut self) -> Result<()> {
        let target = &self.target;
        if !self.large {
            target.alone("prepare for a large batch", mirror::prepare_to_note(target)).await?;
            target.begin_pieces().await?;
            checkpoint::begin(target, self.epoch, self.end_lsn).await?;
            self.large = true;
        }
        Ok(())
    }
}

/// Gives the piece back, with what became of it: see [`mirror::Writes::send_piece`].
async fn write(target: &Target, piece: Part) -> (Part, Result<Option<usize>>) {
    let written = async {
        let writes = mirror::prepare(target, &piece, TouchedFrom::Table).await?;
        writes.send_piece(target).await
    };
    let written = written.await;
    (piece, written)
}

/// Waits for all that is on its way.
async fn settle_all<F>(target: &Target, sent: &mut FuturesOrdered<F>) -> Result<()>
where
    F: Future<Output = (Part, Result<Option<usize>>)>,
{
    while let Some((piece, written)) = sent.next().await {
        settle(target, piece, written, sent).await?;
    }
    Ok(())
}

/// Looks at what became of a piece. Where part of it has to be done in another way, nothing else is on its way meanwhile: what was sent
/// after it has failed with it, and is written once more, in its turn.
async fn settle<F>(
    target: &Target,
    piece: Part,
    written: Result<Option<usize>>,
    sent: &mut FuturesOrdered<F>,
) -> Result<()>
where
    F: Future<Output = (Part, Result<Option<usize>>)>,
{
    let Some(place) = written? else { return Ok(()) };
    let mut failed = Vec::new();
    while let Some((piece, written)) = sent.next().await {
        match written {
            Err(error) if !error.is_of_one_before() => return Err(error),
            // One that had nothing to say.
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => failed.push(piece),
        }
    }
    write_alone(target, &piece, Some(place)).await?;
    for piece in &failed {
        write_alone(target, piece, None).await?;
    }
    Ok(())
}

/// The whole piece, or from the statement on that met a row.
async fn write_alone(target: &Target, piece: &Part, met: Option<usize>) -> Result<()> {
    let writes = mirror::prepare(target, piece, TouchedFrom::Table).await?;
    let met = match met {
        Some(place) => Some(place),
        None => writes.send_piece(target).await?,
    };
    match met {
        Some(place) => writes.replace(target, place).await,
        None => Ok(()),
    }
}
