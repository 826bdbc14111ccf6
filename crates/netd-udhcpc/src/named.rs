//! Replies that are not taken: the log names each reason once.
//!
//! Pure. A reply comes as often as we ask, and any station on the link can send one: the log has
//! one line for each text since the last change of state, and [`MOST`] lines at the most;
//! everything else is for `-v`. Called by client.rs.

use crate::event::Action;

/// Lines between two changes of state.
const MOST: usize = 16;

/// The lines since the last change of state.
#[derive(Debug, Default)]
pub(crate) struct Named(Vec<String>);

impl Named {
    /// The line for the log, or for `-v` when it is not new.
    pub(crate) fn name(&mut self, text: String) -> Action {
        if self.0.len() == MOST || self.0.contains(&text) {
            return Action::Debug(text);
        }
        self.0.push(text.clone());
        Action::Log(if self.0.len() == MOST { text + "; more are named with -v" } else { text })
    }

    /// The state has changed: every line is new again.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_named_once_until_something_changes_and_a_flood_is_cut_off() {
        let mut named = Named::default();
        let is_log = |action| matches!(action, Action::Log(_));
        assert!(is_log(named.name("a".into())));
        assert!(is_log(named.name("b".into())));
        assert!(!is_log(named.name("a".into())) && !is_log(named.name("b".into())));
        named.forget();
        let lines = (0..1000).map(|n| named.name(n.to_string())).filter(|action| is_log(action.clone())).count();
        assert_eq!((lines, named.0.len()), (MOST, MOST));
        named.forget();
        let all: Vec<Action> = (0..MOST).map(|n| named.name(n.to_string())).collect();
        assert_eq!(all[0], Action::Log("0".into()));
        assert_eq!(all[MOST - 1], Action::Log("15; more are named with -v".into()));
    }
}
