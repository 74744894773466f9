//! LiteLLM's rules about budgets: what is a limit, when it is reached, and how full somebody is. Pure.

use serde::Serialize;

/// Moments in microseconds since 1970, UTC.
pub type Micros = i64;

/// From this share of the limit on, somebody is close to it.
pub const WARNING: f64 = 0.8;

/// Who has a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Kind {
    User,
    Key,
    Team,
    Organization,
    TeamMember,
    /// Whoever an application says it asks for: LiteLLM's end users.
    Customer,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::User, Self::Key, Self::Team, Self::Organization, Self::TeamMember, Self::Customer];

    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Key => "key",
            Self::Team => "team",
            Self::Organization => "organization",
            Self::TeamMember => "team_member",
            Self::Customer => "customer",
        }
    }
}

/// How somebody stands to their limit; the first of these that holds, from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum State {
    /// No limit, and no soft budget that is reached.
    Unlimited,
    Ok,
    /// The soft budget is reached: LiteLLM warns, and refuses nothing.
    Soft,
    /// [`WARNING`] of the limit is used.
    Warning,
    /// LiteLLM refuses.
    Exceeded,
}

impl State {
    pub const ALL: [Self; 5] = [Self::Ok, Self::Soft, Self::Warning, Self::Exceeded, Self::Unlimited];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Soft => "soft",
            Self::Warning => "warning",
            Self::Exceeded => "exceeded",
            Self::Unlimited => "unlimited",
        }
    }
}

/// Where one entity stands at one moment. Money in US dollars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    pub kind: Kind,
    pub spend: f64,
    /// With temporary increases. `None`: no limit.
    pub limit: Option<f64>,
    pub soft: Option<f64>,
    /// When the spend goes back to 0.
    pub reset: Option<Micros>,
    /// It is one of the windows of `budget_limits`.
    pub is_window: bool,
    /// LiteLLM refuses it whatever it spent.
    pub is_blocked: bool,
}

impl Standing {
    /// The share of the limit that is used: 1 is all of it. A limit of 0 is a limit: all of it is used at once.
    pub fn utilization(&self) -> Option<f64> {
        let limit = self.limit?;
        Some(if limit > 0.0 {
            self.spend / limit
        } else if self.spend > limit {
            f64::INFINITY
        } else if self.spend < limit {
            0.0
        } else {
            1.0
        })
    }

    pub fn is_over_soft(&self) -> bool {
        self.soft.is_some_and(|soft| self.spend >= soft)
    }

    /// A team and a customer may spend their limit to the cent; everybody else, and any window, is refused when it is reached.
    pub fn is_exceeded(&self) -> bool {
        self.limit.is_some_and(|limit| match self.kind {
            Kind::Team | Kind::Customer if !self.is_window => self.spend > limit,
            Kind::Team | Kind::Customer | Kind::User | Kind::Key | Kind::Organization | Kind::TeamMember => {
                self.spend >= limit
            }
        })
    }

    /// Whether LiteLLM refuses it.
    pub fn is_refused(&self) -> bool {
        self.is_exceeded() || self.is_blocked
    }

    pub fn state(&self) -> State {
        if self.is_exceeded() {
            State::Exceeded
        } else if self.utilization().is_some_and(|used| used >= WARNING) {
            State::Warning
        } else if self.is_over_soft() {
            State::Soft
        } else if self.limit.is_none() {
            State::Unlimited
        } else {
            State::Ok
        }
    }
}

/// A limit as LiteLLM reads it: NaN and infinity are none, 0 is one.
pub fn limit(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}

/// A soft budget of a key or of a budget row: 0 is none there, unlike a team's.
pub fn soft(value: Option<f64>) -> Option<f64> {
    limit(value).filter(|soft| *soft != 0.0)
}

/// A temporary increase: how much, and until when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Increase {
    pub amount: f64,
    pub expiry: Micros,
}

impl Increase {
    pub fn at(this: Option<Self>, now: Micros) -> f64 {
        this.filter(|one| one.expiry > now).map_or(0.0, |one| one.amount)
    }
}

/// A moment as Postgres writes a timestamp, or as a person may have written one in ISO 8601; without a zone it is UTC.
/// `None` for anything else, infinity included.
pub fn moment(text: &str) -> Option<Micros> {
    let text = text.trim();
    let (date, rest) = text.split_at_checked(text.find(['T', 't', ' ']).unwrap_or(text.len()))?;
    let mut parts = date.split('-');
    let mut next = || parts.next()?.parse::<i64>().ok();
    let (year, month, day) = (next()?, next()?, next()?);
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) || year > 200_000 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    let (time, offset) = zone(rest.get(1..).unwrap_or_default())?;
    let of_day = if time.is_empty() { 0 } else { time_of_day(time)? };
    Some(days * 86_400_000_000 + of_day - offset * 1_000_000)
}

/// The longest a duration of LiteLLM's may be (`30s`, `5m`, `24h`, `7d`, `2w`, `1mo`), in microseconds.
pub fn duration(text: &str) -> Option<Micros> {
    let text = text.trim();
    let (number, unit) = text.split_at_checked(text.find(|c: char| !c.is_ascii_digit())?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "mo" => 31 * 86_400,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(seconds)?.checked_mul(1_000_000)
}

/// Splits the zone off a time: what is left, and the seconds it is ahead of UTC.
fn zone(text: &str) -> Option<(&str, i64)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, 0)) };
    let (time, zone) = text.split_at_checked(at)?;
    let digits: String = zone.chars().skip(1).filter(|c| *c != ':').collect();
    let pair = |from: usize| digits.get(from..from + 2).map_or(Some(0), |two| two.parse::<i64>().ok());
    if digits.len() < 2 || digits.len() % 2 == 1 {
        return None;
    }
    let seconds = pair(0)? * 3600 + pair(2)? * 60 + pair(4)?;
    Some((time, if zone.starts_with('-') { -seconds } else { seconds }))
}

fn time_of_day(text: &str) -> Option<Micros> {
    let (clock, fraction) = text.split_once(['.', ',']).unwrap_or((text, ""));
    let mut parts = clock.split(':');
    let hours: i64 = parts.next()?.parse().ok()?;
    let mut next = || parts.next().map_or(Some(0), |part| part.parse::<i64>().ok());
    let (minutes, seconds) = (next()?, next()?);
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let micros: i64 = digits.parse().ok()?;
    let fits = (0..=24).contains(&hours) && (0..60).contains(&minutes) && (0..=60).contains(&seconds);
    fits.then_some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// Days since 1970-01-01 in the Gregorian calendar: years counted from March, so that the leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leaps + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(kind: Kind, spend: f64, limit: Option<f64>) -> Standing {
        Standing { kind, spend, limit, soft: None, reset: None, is_window: false, is_blocked: false }
    }

    #[test]
    fn a_limit_of_nothing_is_a_limit_and_infinity_is_none() {
        assert_eq!(standing(Kind::Key, 0.0, limit(Some(0.0))).state(), State::Exceeded);
        assert_eq!(standing(Kind::Team, 0.0, limit(Some(0.0))).state(), State::Warning);
        assert_eq!(standing(Kind::Team, 0.1, limit(Some(0.0))).utilization(), Some(f64::INFINITY));
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(standing(Kind::User, 9.0, limit(Some(value))).state(), State::Unlimited);
        }
        assert_eq!(standing(Kind::User, f64::NAN, Some(1.0)).state(), State::Ok);
    }

    #[test]
    fn a_team_is_refused_above_its_limit_and_others_at_it() {
        assert_eq!(standing(Kind::Team, 10.0, Some(10.0)).state(), State::Warning);
        assert_eq!(standing(Kind::Team, 10.1, Some(10.0)).state(), State::Exceeded);
        for kind in [Kind::User, Kind::Key, Kind::Organization, Kind::TeamMember] {
            assert_eq!(standing(kind, 10.0, Some(10.0)).state(), State::Exceeded, "{kind:?}");
            assert_eq!(standing(kind, 8.0, Some(10.0)).state(), State::Warning);
            assert_eq!(standing(kind, 7.9, Some(10.0)).state(), State::Ok);
        }
        let soft = Standing { soft: Some(5.0), ..standing(Kind::Team, 5.0, None) };
        assert_eq!(soft.state(), State::Soft);
        assert_eq!(Standing { spend: 4.9, ..soft }.state(), State::Unlimited);
    }

    #[test]
    fn moments_are_read_as_postgres_and_as_people_write_them() {
        let noon = 1_795_003_200_000_000;
        for text in [
            "2026-11-18 12:00:00",
            "2026-11-18T12:00",
            "2026-11-18T12:00:00.000Z",
            "2026-11-18T13:30:00+01:30",
            "2026-11-18 07:00:00-05",
        ] {
            assert_eq!(moment(text), Some(noon), "{text}");
        }
        assert_eq!(moment("1970-01-01"), Some(0));
        assert_eq!(moment("2024-02-29 00:00:00.5"), Some(1_709_164_800_500_000));
        assert_eq!(moment("9999-12-31 23:59:59.999"), Some(253_402_300_799_999_000));
        for text in
            ["", "infinity", "tomorrow", "2026-13-01", "2026-11-18T25", "2026-11", "2026-11-18Tx", "ä-ö-ü"]
        {
            assert_eq!(moment(text), None, "{text}");
        }
    }
}
