//! A time after which no action is begun, nor before it one that would end after it by how long it took the last time.

use jiff::civil::Time;
use jiff::{SignedDuration, Timestamp, Zoned};

/// When a build is to be over.
#[derive(Clone, Debug, PartialEq)]
pub struct Until {
    at: Timestamp,
    /// The time of day, with the date where that is another one; as people read it.
    pub text: String,
}

impl Until {
    /// Reads `18:30`, the next time a clock shows that, or how long from now: `45m`, `2h30m`.
    pub fn read(text: &str, now: &Zoned) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is neither a time of day such as 18:30 nor a time from now such as 45m or 2h30m");
        let at = match text.contains(':') {
            true => next(text.parse().map_err(|_| wrong())?, now),
            false => {
                let left: SignedDuration = text.parse().map_err(|_| wrong())?;
                (!left.is_negative()).then(|| now.checked_add(left).ok()).flatten()
            }
        };
        let at = at.ok_or_else(wrong)?;
        let form = if at.date() == now.date() { "%H:%M" } else { "%Y-%m-%d %H:%M" };
        Ok(Self { at: at.timestamp(), text: at.strftime(form).to_string() })
    }

    /// Whether an action that takes so many milliseconds, as far as is known, may begin at `now`.
    pub(super) fn leaves(&self, now: Timestamp, wall_ms: Option<u64>) -> bool {
        let left_ms = self.at.duration_since(now).as_millis();
        left_ms > 0 && i128::from(wall_ms.unwrap_or(0)) <= left_ms
    }
}

/// Today, or tomorrow where that is over. A time that a change of clocks leaves out comes as much later.
fn next(time: Time, now: &Zoned) -> Option<Zoned> {
    let on = |date: jiff::civil::Date| date.to_datetime(time).to_zoned(now.time_zone().clone()).ok();
    on(now.date()).filter(|at| at > now).or_else(|| on(now.date().tomorrow().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(text: &str) -> Result<Until, String> {
        Until::read(text, &"2026-03-28T20:00[Europe/Berlin]".parse().expect("a time"))
    }

    #[test]
    fn times_of_day_and_times_from_now() {
        let check = |text: &str, at: &str, said: &str| {
            let at: Zoned = at.parse().expect("a time");
            assert_eq!(until(text), Ok(Until { at: at.timestamp(), text: said.into() }), "{text}");
        };
        check("21:30", "2026-03-28T21:30[Europe/Berlin]", "21:30");
        check("20:00", "2026-03-29T20:00[Europe/Berlin]", "2026-03-29 20:00");
        check("02:30", "2026-03-29T03:30[Europe/Berlin]", "2026-03-29 03:30");
        check("45m", "2026-03-28T20:45[Europe/Berlin]", "20:45");
        check("2h30m", "2026-03-28T22:30[Europe/Berlin]", "22:30");
        check("0s", "2026-03-28T20:00[Europe/Berlin]", "20:00");
        for wrong in ["", "soon", "25:00", "18", "-5m", "5m ago", "18:30pm"] {
            assert!(until(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_would_end_later_is_not_begun() {
        let until = until("1m").expect("a time");
        let at = |left_ms: i64| until.at - SignedDuration::from_millis(left_ms);
        assert!(until.leaves(at(60_000), Some(60_000)));
        assert!(!until.leaves(at(60_000), Some(60_001)));
        assert!(until.leaves(at(1), None), "nobody knows how long it takes");
        assert!(!until.leaves(at(0), Some(0)));
        assert!(!until.leaves(at(-1), None));
    }
}
