//! What is written down about an address: the script's variables, the record for fw, the remembered
//! address.
//!
//! Pure. Own files are read as carefully as a packet: they are foreign input too. Called by
//! daemon.rs.

use std::net::Ipv4Addr;

use netd_core::net::IfName;
use netd_core::record::{LinkLocal, Remembered, text::Record};
use netd_core::sink::{News, RecordChange};

use crate::ipv4ll::Config;

/// What the machine cannot know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Name of the interface.
    pub interface: IfName,
    /// First 8 hexadecimal digits of the kernel's boot id.
    pub boot_id: String,
    /// Our process id.
    pub pid: u32,
}

/// The beginning: there is no address. A record of an earlier daemon is left alone when its address
/// is ours still.
pub fn init(context: &Context, resumes: bool) -> News {
    let record = if resumes { RecordChange::Keep } else { RecordChange::Withdraw };
    News { event: Some("init"), env: env(context, None), record }
}

/// There is an address.
pub fn config(context: &Context, ip: Ipv4Addr) -> News {
    let record = RecordChange::Publish(record(context, ip));
    News { event: Some("config"), env: env(context, Some(ip)), record }
}

/// There is none any more.
pub fn deconfig(context: &Context, ip: Ipv4Addr) -> News {
    News { event: Some("deconfig"), env: env(context, Some(ip)), record: RecordChange::Withdraw }
}

fn env(context: &Context, ip: Option<Ipv4Addr>) -> Vec<(String, Vec<u8>)> {
    let ip = ip.map(|ip| ("ip".to_owned(), ip.to_string().into_bytes()));
    [("interface".to_owned(), context.interface.to_string().into_bytes())].into_iter().chain(ip).collect()
}

fn record(context: &Context, ip: Ipv4Addr) -> Record {
    let Context { interface, boot_id, pid } = context.clone();
    LinkLocal { interface, ip, boot_id, owner: Some(pid), other: Vec::new() }.render()
}

/// The address of our own record, if it is of this boot.
pub fn resume(record: &Record, context: &Context, config: &Config) -> Option<Ipv4Addr> {
    let old = LinkLocal::parse(record)?;
    let ours = old.interface == context.interface && !old.boot_id.is_empty() && old.boot_id == context.boot_id;
    (ours && may_use(old.ip, config)).then_some(old.ip)
}

/// What `--state` keeps for the next boot: it says nothing of the network.
pub fn remember(context: &Context, ip: Ipv4Addr) -> Record {
    let interface = context.interface.clone();
    Remembered { interface, mac: None, ip, server_id: None, other: Vec::new() }.render()
}

/// The address that it kept.
pub fn remembered(record: &Record, context: &Context, config: &Config) -> Option<Ipv4Addr> {
    let old = Remembered::parse(record)?;
    (old.interface == context.interface && may_use(old.ip, config)).then_some(old.ip)
}

/// From the range, or asked for (`-r`, which may be a reserved one).
fn may_use(ip: Ipv4Addr, config: &Config) -> bool {
    config.may_choose(ip) || config.known.contains(&ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipv4ll::LINK_LOCAL;

    const IP: Ipv4Addr = Ipv4Addr::new(169, 254, 7, 9);

    fn context() -> Context {
        Context { interface: IfName::parse("eth0").unwrap(), boot_id: "0a1b2c3d".into(), pid: 42 }
    }

    fn configured() -> Config {
        Config {
            interface: "eth0".into(),
            mac: [2, 0, 0, 0, 0, 1],
            network: LINK_LOCAL,
            known: vec![Ipv4Addr::new(169, 254, 0, 5)],
            resume: None,
            quit: false,
            yields: false,
        }
    }

    #[test]
    fn a_script_hears_of_the_interface_always_and_of_the_address_when_there_is_one() {
        let env = |notice: News| {
            let text = |(n, v): (String, Vec<u8>)| format!("{n}={}", String::from_utf8(v).unwrap());
            (notice.event.unwrap(), notice.env.into_iter().map(text).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(env(init(&context(), false)), ("init", "interface=eth0".into()));
        assert_eq!(env(config(&context(), IP)), ("config", "interface=eth0 ip=169.254.7.9".into()));
        assert_eq!(env(deconfig(&context(), IP)), ("deconfig", "interface=eth0 ip=169.254.7.9".into()));
    }

    #[test]
    fn the_record_is_resumed_in_the_same_boot_on_the_same_interface_only() {
        let RecordChange::Publish(good) = config(&context(), IP).record else { panic!("nothing is published") };
        let back = |record: &Record| resume(record, &context(), &configured());
        assert_eq!(back(&good), Some(IP));
        for (key, value) in [
            ("if", "eth1"),
            ("boot_id", "ffffffff"),
            ("boot_id", ""),
            ("ip", "192.0.2.1"),
            ("ip", "x"),
            ("ipmask", "169.254.7.9/8"),
        ] {
            assert_eq!(back(&good.clone().with(key, value)), None, "{key}={value}");
        }
        assert_eq!(resume(&good, &Context { boot_id: String::new(), ..context() }, &configured()), None);
    }

    #[test]
    fn a_remembered_address_is_believed_when_it_is_of_the_range_and_of_the_interface() {
        let good = remember(&context(), IP);
        let read = |record: &Record| remembered(record, &context(), &configured());
        assert_eq!(read(&good), Some(IP));
        assert_eq!(read(&good.clone().with("ip", "169.254.0.5")), Some(Ipv4Addr::new(169, 254, 0, 5)), "asked for");
        for ip in ["", "169.254.0.6", "169.254.255.1", "10.0.0.1", "169.254.7.9/16", "169.254.7.9; reboot"] {
            assert_eq!(read(&good.clone().with("ip", ip)), None, "{ip}");
        }
        assert_eq!(read(&good.with("if", "eth1")), None);
    }
}
