//! `local:rw,remote:r`: what a build may do with the store of this machine and with remotes.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What may be done with either. What is made always goes into the store of this machine: it lives there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Artifacts of other runs are taken from the store of this machine.
    pub reads_local: bool,
    /// Artifacts are brought from remotes.
    pub reads_remote: bool,
    /// What is built is taken to the remotes that can be written to.
    pub writes_remote: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { reads_local: true, reads_remote: true, writes_remote: false }
    }
}

impl Policy {
    /// Nothing is taken from anywhere: what must run runs.
    pub const NO_CACHE: Self = Self { reads_local: false, reads_remote: false, writes_remote: false };

    /// Whether remotes are of any use.
    pub fn uses_remotes(self) -> bool {
        self.reads_remote || self.writes_remote
    }
}

impl FromStr for Policy {
    type Err = String;

    /// Places that are not named are left alone; but what is built goes into the store of this machine in any case.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut policy = Self { reads_local: true, reads_remote: false, writes_remote: false };
        for part in text.split(',') {
            let (place, letters) = part.trim().split_once(':').ok_or("it is `local:rw,remote:r`, or one of the two")?;
            let (reads, writes) = match letters {
                "r" => (true, false),
                "w" => (false, true),
                "rw" => (true, true),
                _ => return Err(format!("`{letters}` is none of `r`, `w` and `rw`")),
            };
            match place {
                "local" if !writes => return Err("`local` needs `w`: what is built lies there".into()),
                "local" => policy.reads_local = reads,
                "remote" => (policy.reads_remote, policy.writes_remote) = (reads, writes),
                _ => return Err(format!("`{place}` is neither `local` nor `remote`")),
            }
        }
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read() {
        let check = |text: &str, reads_local, reads_remote, writes_remote| {
            assert_eq!(text.parse(), Ok(Policy { reads_local, reads_remote, writes_remote }), "{text}");
        };
        check("local:rw,remote:r", true, true, false);
        check("remote:rw", true, true, true);
        check("local:w, remote:w", false, false, true);
        check("local:rw", true, false, false);
        for bad in ["", "local", "local:r", "remote:x", "disk:rw", "local:rw;remote:r"] {
            assert!(bad.parse::<Policy>().is_err(), "{bad}");
        }
    }
}
