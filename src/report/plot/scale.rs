//! Where values are between two ends of a picture: evenly, between round numbers, or by powers of ten.

/// A scale between round numbers.
#[derive(Debug)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) step: f64,
    pub(super) steps: usize,
}

impl Axis {
    /// Round numbers around these, in about so many steps of 1, 2 or 5 times a power of ten.
    pub(super) fn around(low: f64, high: f64, about: f64) -> Self {
        let span = if high - low > 1e-9 { high - low } else { 1e-3 };
        let power = 10f64.powf((span / about).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| span / s <= about).unwrap_or(span);
        let low = (low / step + 1e-9).floor() * step;
        let steps = (((high - low) / step - 1e-9).ceil() as usize).max(1);
        Self { low, step, steps }
    }

    pub(super) fn ticks(&self) -> impl Iterator<Item = (f64, String)> + '_ {
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        (0..=self.steps).map(move |i| {
            let value = self.low + i as f64 * self.step;
            let digits = format!("{:.decimals$}", value.abs());
            let negative = value < -self.step / 2.0;
            (value, if negative { format!("\u{2212}{digits}") } else { digits })
        })
    }

    /// Where a value is between two ends.
    pub(super) fn place(&self, value: f64, from: f64, to: f64) -> f64 {
        from + (value - self.low) / (self.step * self.steps as f64) * (to - from)
    }
}

/// Powers of ten.
#[derive(Debug)]
pub(super) struct Powers {
    /// The lowest.
    pub(super) low: i32,
    /// The highest, at least one above.
    pub(super) high: i32,
}

impl Powers {
    /// Those around values above 0.
    pub(super) fn around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values.filter(|v| *v > 0.0).fold((f64::INFINITY, 0f64), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return Self { low: -4, high: 0 };
        }
        let (low, high) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        Self { low, high: high.max(low + 1) }
    }

    pub(super) fn lowest(&self) -> f64 {
        10f64.powi(self.low)
    }

    /// Where a value above 0 is between two ends.
    pub(super) fn place(&self, value: f64, from: f64, to: f64) -> f64 {
        from + (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low) * (to - from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(low: f64, high: f64, about: f64) -> Vec<String> {
        Axis::around(low, high, about).ticks().map(|t| t.1).collect()
    }

    #[test]
    fn scales_go_between_round_numbers() {
        assert_eq!(names(0.0, 0.87, 5.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(names(0.0, 132.5, 8.0), ["0", "20", "40", "60", "80", "100", "120", "140"]);
        assert_eq!(
            names(-0.07, 0.021, 5.0),
            ["\u{2212}0.08", "\u{2212}0.06", "\u{2212}0.04", "\u{2212}0.02", "0.00", "0.02", "0.04"][..]
        );
        let flat = Axis::around(0.5, 0.5, 5.0);
        assert!(flat.place(0.5, 0.0, 100.0).is_finite() && flat.steps >= 1, "{flat:?}");
    }
}
