//! No mass accident (docs/src/design.md, "Invariants"): a batch that would lock out unusually many people is held until approved.
//!
//! Owns the table `brake`. Counts nobody itself: the projection says how many people a batch departs or strips of
//! their groups. Never commits; a batch that is held is rolled back here, because what raises the brake must stay.

use crate::config::policy;
use crate::error::{Error, Result, Side, on};
use crate::position::Lsn;
use crate::sql;
use crate::target::Target;

const ACTION: &str = "hold a batch against the brake";

/// Whether a batch of an earlier session is held, approved or not.
pub async fn is_open(target: &Target) -> Result<bool> {
    let row = target.client().query_one(sql::BRAKE_IS_OPEN, &[]).await;
    Ok(row.map_err(on(Side::Target, "look at the brake"))?.get(0))
}

/// The brake that waits for an approval, as the error that holds us.
pub async fn waiting(target: &Target) -> Result<Option<Error>> {
    let row = target.client().query_opt(sql::BRAKE_WAITING, &[]).await;
    let row = row.map_err(on(Side::Target, "look at the brake"))?;
    Ok(row.map(|row| Error::Brake { id: row.get(0), people: row.get(1), active: row.get(2) }))
}

/// Who loses something at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losing {
    /// They are locked out.
    pub departing: i64,
    /// They are left without any group of ours, any model, or the key we gave them.
    pub stripped: i64,
    /// A used-up budget leaves them without any model. That happens to people every day, so it is held by itself, and only where it happens
    /// to as many at once.
    pub closed: i64,
}

impl std::iter::Sum for Losing {
    fn sum<I: Iterator<Item = Self>>(each: I) -> Self {
        each.fold(Self::default(), |all, one| Self {
            departing: all.departing + one.departing,
            stripped: all.stripped + one.stripped,
            closed: all.closed + one.closed,
        })
    }
}

impl Losing {
    /// How many people the limits are about.
    pub fn people(self) -> i64 {
        (self.departing + self.stripped).max(self.closed)
    }
}

/// Holds the open transaction against the limits. `end_lsn` the end of its batch. `was_open`: an older brake may be released by it.
/// `resnapshot`: whose merge it is, if it is no batch of the stream. `held` is told before anybody can see the brake in the
/// database: whoever sees it there must not find the daemon that raised it "ready".
///
/// # Errors
/// [`Error::Brake`] when it must wait for an approval; the transaction is rolled back then.
pub async fn hold(
    target: &Target,
    limits: &policy::Brake,
    losing: Losing,
    end_lsn: Lsn,
    was_open: bool,
    resnapshot: Option<i64>,
    held: impl FnOnce(&Error),
) -> Result<()> {
    let people = losing.people();
    let client = target.client();
    // Those who depart are marked already; before, they were active.
    let (usual, active) = usual(target, limits, people, losing.departing).await?;
    if people <= usual {
        if was_open {
            let done = client.execute(sql::BRAKE_RELEASE, &[&end_lsn]).await;
            done.map_err(on(Side::Target, "release the brake"))?;
            tracing::info!(people, "what was held takes less by now, and passes");
        }
        return Ok(());
    }
    let row = client.query_opt(sql::BRAKE_USE_APPROVAL, &[&people, &usual, &resnapshot]).await;
    if row.map_err(on(Side::Target, ACTION))?.is_some() {
        tracing::info!(people, "what was held is approved, and passes");
        return Ok(());
    }
    target.roll_back(ACTION).await?;
    let raise = async {
        let row = client.query_one(sql::BRAKE_RAISE, &[&end_lsn, &people, &active, &resnapshot]).await;
        let brake = Error::Brake { id: row.map_err(on(Side::Target, ACTION))?.get(0), people, active };
        held(&brake);
        Ok(brake)
    };
    Err(target.alone(ACTION, raise).await?)
}

/// How many people may lose something at once, and of how many; the latter is only looked for where it matters. `departed` of
/// those who count as active are not any more.
async fn usual(target: &Target, limits: &policy::Brake, people: i64, departed: i64) -> Result<(i64, i64)> {
    let usual = i64::from(limits.people);
    if people <= usual {
        return Ok((usual, 0));
    }
    let row = target.client().query_one("select count(*) from account where active", &[]).await;
    let active = row.map_err(on(Side::Target, ACTION))?.get::<_, i64>(0) + departed;
    Ok((usual.max(active * i64::from(limits.percent) / 100), active))
}

/// Whether a batch that takes something from so many people would be held, short of an approval.
pub async fn is_too_much(target: &Target, limits: &policy::Brake, losing: Losing) -> Result<bool> {
    let people = losing.people();
    Ok(people > usual(target, limits, people, 0).await?.0)
}

/// Lets the held batch `id` pass. Gives the number of people it is about, or `None` if no such batch is held.
pub async fn approve(target: &Target, id: i64) -> Result<Option<i32>> {
    let row = target.client().query_opt(sql::BRAKE_APPROVE, &[&id]).await;
    Ok(row.map_err(on(Side::Target, "approve a batch"))?.map(|row| row.get(0)))
}
