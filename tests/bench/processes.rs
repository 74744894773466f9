//! Processor time of a process, and of a server with everything it started. As Linux says it; unknown elsewhere.

use std::fs;

/// Of a second, in which Linux counts for programs, whatever the kernel's own clock.
const TICKS: f64 = 100.0;

/// One line of `/proc/*/stat`.
struct Stat {
    pid: u32,
    parent: u32,
    own: f64,
    /// Of children that have ended.
    ended: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the bracket may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
    Some(Stat {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        own: (ticks(11)? + ticks(12)?) / TICKS,
        ended: (ticks(13)? + ticks(14)?) / TICKS,
    })
}

/// Seconds of this process alone.
pub fn of_process(pid: u32) -> f64 {
    stat(pid).map_or(f64::NAN, |stat| stat.own)
}

/// Seconds of this process, all that it started, and all that those started, ended or not.
pub fn of_family(pid: u32) -> f64 {
    let all: Vec<Stat> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .collect();
    let mut family = vec![pid];
    let mut seen = 0;
    let mut seconds = 0.0;
    while let Some(member) = family.get(seen).copied() {
        seen += 1;
        family.extend(all.iter().filter(|stat| stat.parent == member).map(|stat| stat.pid));
        match all.iter().find(|stat| stat.pid == member) {
            Some(stat) => seconds += stat.own + stat.ended,
            None if member == pid => return f64::NAN,
            None => {}
        }
    }
    seconds
}
