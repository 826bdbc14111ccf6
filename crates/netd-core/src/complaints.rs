//! What goes wrong is said once per change, not once per try. PURE.
//!
//! A daemon that cannot send, write or tell tries for hours; its log gets one line when that
//! begins, one when the reason changes. Each thing that can go wrong has a key. Called by the
//! daemons' shells (through `netd::daemon::Log`) and by sink.rs.

/// What is wrong at this moment, by its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaints(Vec<(String, String)>);

impl Complaints {
    /// Notes that `what` is wrong for the reason `text`. Returns whether the log has to say it: the
    /// reason is new.
    pub fn wrong(&mut self, what: &str, text: &str) -> bool {
        match self.0.iter_mut().find(|(key, _)| key == what) {
            Some((_, before)) if before == text => return false,
            Some((_, before)) => text.clone_into(before),
            None => self.0.push((what.to_owned(), text.to_owned())),
        }
        true
    }

    /// Notes that `what` works. Returns whether it was wrong before.
    pub fn right(&mut self, what: &str) -> bool {
        let at = self.0.iter().position(|(key, _)| key == what);
        at.map(|at| self.0.swap_remove(at)).is_some()
    }

    /// Whether `what` is wrong.
    pub fn is_wrong(&self, what: &str) -> bool {
        self.0.iter().any(|(key, _)| key == what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_when_it_is_new_and_again_after_it_was_good() {
        let mut complaints = Complaints::default();
        assert!(complaints.wrong("send", "no buffer space"));
        assert!(!complaints.wrong("send", "no buffer space"), "the same again");
        assert!(complaints.wrong("write", "no buffer space"), "another thing");
        assert!(complaints.wrong("send", "network is down"), "another reason");
        assert!(complaints.is_wrong("send") && !complaints.is_wrong("read"));
        assert!(complaints.right("send"));
        assert!(!complaints.right("send"), "it was right already");
        assert!(complaints.wrong("send", "network is down"), "wrong anew");
        assert!(!complaints.wrong("write", "no buffer space"), "each has its own");
    }
}
