//! One interface, followed by its name: what the kernel said -> what changed. PURE.
//!
//! The kernel tells of an interface for many reasons and merges quick changes. Only transitions
//! come out of here. The carrier counters show a flap that the kernel has merged away. Called by
//! `netd::link`.

use crate::wire::link::Link;

/// Something that happened to the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The first answer: no interface bears the name.
    Missing,
    /// It is there: at the first look, or later. [`Transition::Up`] or [`Transition::Down`]
    /// follows.
    Appeared {
        /// Its index.
        ifindex: u32,
        /// Whether IFF_UP is set.
        admin_up: bool,
    },
    /// IFF_UP was taken away. [`Transition::Down`] follows when it was up.
    AdminDown {
        /// Its index.
        ifindex: u32,
    },
    /// Packets can flow.
    Up,
    /// Packets cannot flow any more.
    Down,
    /// It lives on under another name: gone, as far as its name goes.
    Renamed {
        /// The new name.
        to: String,
    },
    /// It was removed, or went to another network namespace.
    Gone,
}

/// What the kernel said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// This link, in this state.
    Link(Link),
    /// The link of this index was removed.
    Deleted {
        /// Its index.
        ifindex: u32,
    },
    /// The answer to a question by name: there is none.
    Absent,
}

#[derive(Debug)]
enum State {
    /// Nothing was said yet.
    Unknown,
    /// No interface bears the name.
    Missing,
    /// This one does.
    Present(Link),
}

/// Follows one name.
#[derive(Debug)]
pub struct Tracker {
    name: String,
    state: State,
}

impl Tracker {
    /// For the interface `name`; whether it is there is not known yet.
    pub fn new(name: &str) -> Tracker {
        Tracker { name: name.to_owned(), state: State::Unknown }
    }

    /// The name that is followed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface as it was seen last.
    pub fn link(&self) -> Option<&Link> {
        match &self.state {
            State::Present(link) => Some(link),
            State::Unknown | State::Missing => None,
        }
    }

    /// Takes in one thing seen; the transitions are in the order in which they happened.
    pub fn observe(&mut self, seen: Seen) -> Vec<Transition> {
        let before = std::mem::replace(&mut self.state, State::Missing);
        let (state, out) = match (before, seen) {
            (State::Unknown, Seen::Absent) => (State::Missing, vec![Transition::Missing]),
            (State::Missing, Seen::Absent) => (State::Missing, Vec::new()),
            (State::Present(_), Seen::Absent) => (State::Missing, vec![Transition::Gone]),
            (before @ (State::Unknown | State::Missing), Seen::Deleted { .. }) => (before, Vec::new()),
            (State::Present(old), Seen::Deleted { ifindex }) if old.ifindex == ifindex => {
                (State::Missing, vec![Transition::Gone])
            }
            (State::Present(old), Seen::Deleted { .. }) => (State::Present(old), Vec::new()),
            (before @ (State::Unknown | State::Missing), Seen::Link(new)) if new.name != self.name => {
                (before, Vec::new())
            }
            (State::Unknown | State::Missing, Seen::Link(new)) => {
                let out = appeared(&new);
                (State::Present(new), out)
            }
            (State::Present(old), Seen::Link(new)) => self.present(old, new),
        };
        self.state = state;
        out
    }

    fn present(&self, old: Link, new: Link) -> (State, Vec<Transition>) {
        match (old.ifindex == new.ifindex, new.name == self.name) {
            (true, true) => {
                let out = changed(&old, &new);
                (State::Present(new), out)
            }
            (true, false) => (State::Missing, vec![Transition::Renamed { to: new.name }]),
            // The name has moved on to another interface, and the messages in between were lost.
            (false, true) => {
                let mut out = vec![Transition::Gone];
                out.extend(appeared(&new));
                (State::Present(new), out)
            }
            (false, false) => (State::Present(old), Vec::new()),
        }
    }
}

fn appeared(new: &Link) -> Vec<Transition> {
    let carrier = if new.running { Transition::Up } else { Transition::Down };
    vec![Transition::Appeared { ifindex: new.ifindex, admin_up: new.admin_up }, carrier]
}

fn changed(old: &Link, new: &Link) -> Vec<Transition> {
    let mut out = Vec::new();
    if old.admin_up && !new.admin_up {
        out.push(Transition::AdminDown { ifindex: new.ifindex });
    }
    match (old.running, new.running) {
        (false, true) => out.push(Transition::Up),
        (true, false) => out.push(Transition::Down),
        // Down and up again within one message: the counter shows it. It counts losses alone, so
        // another value means a loss.
        (true, true) if old.down_count != new.down_count => out.extend([Transition::Down, Transition::Up]),
        (true, true) | (false, false) => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use Transition::{AdminDown, Appeared, Down, Gone, Missing, Renamed, Up};

    fn link(ifindex: u32, name: &str, running: bool, down_count: u32) -> Seen {
        Seen::Link(Link {
            ifindex,
            name: name.into(),
            mac: None,
            addressed: false,
            admin_up: true,
            arp: true,
            running,
            mtu: 1500,
            down_count: Some(down_count),
            up_count: Some(0),
        })
    }

    fn admin_down(ifindex: u32, name: &str) -> Seen {
        match link(ifindex, name, false, 0) {
            Seen::Link(l) => Seen::Link(Link { admin_up: false, ..l }),
            other => other,
        }
    }

    fn play(seen: &[Seen]) -> Vec<Transition> {
        let mut tracker = Tracker::new("eth0");
        seen.iter().flat_map(|s| tracker.observe(s.clone())).collect()
    }

    fn here(ifindex: u32) -> Transition {
        Appeared { ifindex, admin_up: true }
    }

    #[test]
    fn each_story_gives_its_transitions() {
        let eth0 = |running, downs| link(2, "eth0", running, downs);
        let table: &[(&str, Vec<Seen>, Vec<Transition>)] = &[
            ("missing is told once", vec![Seen::Absent, Seen::Absent], vec![Missing]),
            ("there and up", vec![eth0(true, 0)], vec![here(2), Up]),
            ("there and down", vec![eth0(false, 0)], vec![here(2), Down]),
            ("made later", vec![Seen::Absent, eth0(false, 0), eth0(true, 0)], vec![Missing, here(2), Down, Up]),
            ("said twice", vec![eth0(true, 0), eth0(true, 0)], vec![here(2), Up]),
            ("pulled and plugged", vec![eth0(true, 0), eth0(false, 1), eth0(true, 1)], vec![here(2), Up, Down, Up]),
            ("merged flap", vec![eth0(true, 1), eth0(true, 2)], vec![here(2), Up, Down, Up]),
            ("counter wraps", vec![eth0(true, u32::MAX), eth0(true, 0)], vec![here(2), Up, Down, Up]),
            ("flap while down stays down", vec![eth0(false, 1), eth0(false, 2)], vec![here(2), Down]),
            ("others do not count", vec![eth0(true, 0), link(3, "eth1", false, 9)], vec![here(2), Up]),
            ("others before it", vec![link(3, "eth1", true, 9), Seen::Absent], vec![Missing]),
            ("removed", vec![eth0(true, 0), Seen::Deleted { ifindex: 2 }], vec![here(2), Up, Gone]),
            ("another removed", vec![eth0(true, 0), Seen::Deleted { ifindex: 3 }], vec![here(2), Up]),
            ("removed, removal lost", vec![eth0(true, 0), Seen::Absent], vec![here(2), Up, Gone]),
            (
                "renamed away and back",
                vec![eth0(true, 0), link(2, "wan", true, 0), eth0(true, 0)],
                vec![here(2), Up, Renamed { to: "wan".into() }, here(2), Up],
            ),
            (
                "replaced, messages lost",
                vec![eth0(true, 0), link(7, "eth0", false, 0)],
                vec![here(2), Up, Gone, here(7), Down],
            ),
            (
                "set down by hand",
                vec![eth0(true, 0), admin_down(2, "eth0"), admin_down(2, "eth0")],
                vec![here(2), Up, AdminDown { ifindex: 2 }, Down],
            ),
            ("made but not up", vec![admin_down(2, "eth0")], vec![Appeared { ifindex: 2, admin_up: false }, Down]),
        ];
        for (what, seen, want) in table {
            assert_eq!(&play(seen), want, "{what}");
        }
    }
}
