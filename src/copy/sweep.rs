//! Open WebUI's rows against what they should be, beside the stream.
//!
//! Owns the slices: few people or groups at a time, each in a short transaction on a session of its own, in which the ordinary
//! projection runs and is rolled back. What it would have written differs; a row that is as it should be is not
//! touched, and nobody's row is waited for. Who mends what differs is the applier, in ordinary small batches.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio_postgres::types::Type;

use crate::copy::verify::{self, Difference};
use crate::error::Result;
use crate::mirror;
use crate::position::Lsn;
use crate::project::touched::Touched;
use crate::project::{Outcome, Projection, Scope, Stamp};
use crate::sql::{self, TouchedFrom};
use crate::stage::Part;
use crate::target::{QUICK, Target, open_webui};

/// People of one slice: what the applier does for as many takes a fraction of a tenth of a second.
const PEOPLE: i64 = 200;
const GROUPS: i64 = 20;
/// How often a slice is tried that met the stream, and how long between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// What a slice would have written.
#[derive(Debug)]
pub struct Slice {
    pub touched: Touched,
    pub differences: Vec<Difference>,
    pub outcome: Outcome,
}

impl Slice {
    pub fn is_clean(&self) -> bool {
        let access = self.outcome.access;
        let rows = access.grants_added
            + access.grants_removed
            + access.members_added
            + access.members_removed
            + access.models;
        self.differences.is_empty() && rows == 0
    }
}

/// All that differs.
#[derive(Debug, Default)]
pub struct Differences {
    /// By operation and entity: a group is met with its people, and once more as itself.
    named: BTreeMap<(String, Option<String>), Difference>,
    access: BTreeMap<&'static str, i64>,
    /// Rows of the mirror that were not mended: the stream said something else of them meanwhile.
    pub left_out: usize,
}

impl Differences {
    pub fn add(&mut self, slice: &Slice) {
        for one in &slice.differences {
            self.named.insert((one.operation.clone(), one.record_id.clone()), one.clone());
        }
        let access = slice.outcome.access;
        // These have no audit rows of their own.
        for (operation, count) in [
            ("SYNC_GRANTS", access.grants_added + access.grants_removed),
            ("SYNC_ACCESS_MEMBERS", access.members_added + access.members_removed),
        ] {
            *self.access.entry(operation).or_default() += count;
        }
    }

    /// How many, by operation.
    pub fn counts(&self) -> BTreeMap<String, i64> {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for (operation, _) in self.named.keys() {
            *counts.entry(operation.clone()).or_default() += 1;
        }
        let access = self.access.iter().filter(|(_, count)| **count > 0);
        counts.extend(access.map(|(operation, count)| ((*operation).to_owned(), *count)));
        counts
    }

    pub fn named(self) -> impl Iterator<Item = Difference> {
        self.named.into_values()
    }
}

/// Where a sweep is.
#[derive(Debug)]
enum Next {
    People(String),
    Groups(String, String),
    Done,
}

#[derive(Debug)]
pub struct Sweep<'a> {
    target: &'a Target,
    projection: &'a Projection,
    lsn: Lsn,
    /// What the mirror should have first: for a look that mends nothing.
    mend: Option<&'a Part>,
    /// Compare each person's access with what is there, although nothing about it is news.
    thorough: bool,
    next: Next,
}

impl<'a> Sweep<'a> {
    /// `target`: a session of its own. `lsn`: stamped on what is rolled back again. `thorough`: what a person's access should be is
    /// compared with what is there for each by itself, so that it can be mended for each; otherwise for all at once.
    pub fn new(
        target: &'a Target,
        projection: &'a Projection,
        lsn: Lsn,
        mend: Option<&'a Part>,
        thorough: bool,
    ) -> Self {
        Self { target, projection, lsn, mend, thorough, next: Next::People(String::new()) }
    }

    /// The next slice of people or groups that differs; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Slice>> {
        while let Some(touched) = self.keys().await? {
            let slice = self.look(touched).await?;
            if !slice.is_clean() {
                return Ok(Some(slice));
            }
        }
        Ok(None)
    }

    /// The keys of the next slice.
    async fn keys(&mut self) -> Result<Option<Touched>> {
        let mut touched = Touched { closely: self.thorough, ..Touched::default() };
        if let Next::People(last) = &self.next {
            let statement = self.target.prepare(sql::NEXT_PEOPLE, &[Type::TEXT, Type::INT8]).await?;
            let rows = self.target.query("list people", QUICK, &statement, &[last, &PEOPLE]).await?;
            touched.users = rows.iter().map(|row| row.get(0)).collect();
            if let Some(last) = rows.last() {
                self.next = Next::People(last.get(0));
                return Ok(Some(touched));
            }
            self.next = Next::Groups(String::new(), String::new());
        }
        if let Next::Groups(kind, id) = &self.next {
            let statement =
                self.target.prepare(sql::NEXT_GROUPS, &[Type::TEXT, Type::TEXT, Type::INT8]).await?;
            let rows = self.target.query("list groups", QUICK, &statement, &[kind, id, &GROUPS]).await?;
            for row in &rows {
                touched.add(0, row.get(0), row.get(1))?;
            }
            if let Some(last) = rows.last() {
                self.next = Next::Groups(last.get(0), last.get(1));
                return Ok(Some(touched));
            }
            self.next = Next::Done;
        }
        Ok(None)
    }

    /// What people share: models, access groups and what is granted to them.
    pub async fn shared(&self) -> Result<Slice> {
        self.look(Touched { shared: true, ..Touched::default() }).await
    }

    /// E-mails that several accounts have: nothing of ours to mend, and nobody's accounts are told apart by them any more.
    pub async fn shared_emails(&self) -> Result<Slice> {
        let emails = open_webui::shared_emails(self.target).await?;
        let mut differences = Vec::new();
        if emails > 0 {
            differences.push(Difference {
                operation: "SHARED_EMAIL".to_owned(),
                record_id: None,
                result: "FAILED".to_owned(),
                old_data: None,
                new_data: Some(format!("{{\"count\": {emails}}}")),
            });
        }
        Ok(Slice { touched: Touched::default(), differences, outcome: Outcome::default() })
    }

    /// These, whoever they are.
    pub async fn look(&self, touched: Touched) -> Result<Slice> {
        for _ in 1..TRIES {
            match self.look_once(&touched).await {
                Ok((differences, outcome)) => return Ok(Slice { touched, differences, outcome }),
                // The stream writes the same rows right now.
                Err(error) if matches!(error.sqlstate(), Some("40001" | "40P01" | "55P03")) => {
                    self.target.roll_back("end a look").await?;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
        let (differences, outcome) = self.look_once(&touched).await?;
        Ok(Slice { touched, differences, outcome })
    }

    async fn look_once(&self, touched: &Touched) -> Result<(Vec<Difference>, Outcome)> {
        let target = self.target;
        let begin = "begin isolation level repeatable read; set local lock_timeout = '20ms'";
        target.execute("begin a look", begin).await?;
        if let Some(part) = self.mend {
            let writes = mirror::prepare(target, part, TouchedFrom::Arrays).await?;
            let mut touched = writes.send(target).await?;
            mirror::propagate(target, &mut touched).await?;
        }
        let now = SystemTime::now();
        // Nothing of it stays, so nothing of it is too much.
        let stamp = Stamp { now, lsn: self.lsn, audit_each: true, failures: u32::MAX };
        let outcome = Box::pin(self.projection.apply(target, Scope::These(touched), stamp)).await?;
        let differences = verify::found(target, now, self.lsn).await?;
        target.roll_back("end a look").await?;
        Ok((differences, outcome))
    }
}
