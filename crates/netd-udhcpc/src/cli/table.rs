//! The options of the command line: their table, and what `--help` says of them.
//!
//! Data only; cli.rs has their meaning. A test holds both against man/udhcpc.8.

use applet::getopt::{Arg, Opt, opt};

pub(super) const IPCONF: char = '\u{1}';
pub(super) const NOTIFY: char = '\u{2}';
pub(super) const ENV: char = '\u{3}';
pub(super) const ACD: char = '\u{4}';
pub(super) const RAPID_COMMIT: char = '\u{5}';
pub(super) const STATE: char = '\u{6}';
pub(super) const ROUTES: char = '\u{7}';
pub(super) const IPV6_ONLY: char = '\u{8}';
pub(super) const DUID: char = '\u{e}';
pub(super) const ANONYMOUS: char = '\u{f}';
pub(super) const SHOW: char = '\u{10}';
pub(super) const JSON: char = '\u{11}';
pub(super) const NO_CAGE: char = '\u{12}';
pub(super) const REJECT: char = '\u{13}';
pub(super) const IGNORE: char = '\u{14}';
pub(super) const NO_DEFAULT_ROUTE: char = '\u{15}';
pub(super) const METRIC: char = '\u{16}';
pub(super) const PRIORITY: char = '\u{17}';
pub(super) const HOOK: char = '\u{18}';

pub(super) const TABLE: &[Opt] = &[
    opt('i', "interface", Arg::Required),
    opt('s', "script", Arg::Required),
    opt('p', "pidfile", Arg::Required),
    opt('t', "retries", Arg::Required),
    opt('T', "timeout", Arg::Required),
    opt('A', "tryagain", Arg::Required),
    opt('n', "now", Arg::No),
    opt('b', "background", Arg::No),
    opt('q', "quit", Arg::No),
    opt('f', "foreground", Arg::No),
    opt('R', "release", Arg::No),
    opt('r', "request", Arg::Required),
    opt('O', "request-option", Arg::Required),
    opt('o', "no-default-options", Arg::No),
    opt('x', "", Arg::Required),
    opt('F', "fqdn", Arg::Required),
    opt('V', "vendorclass", Arg::Required),
    opt('C', "clientid-none", Arg::No),
    opt('B', "broadcast", Arg::No),
    opt('a', "arping", Arg::Optional),
    opt('S', "syslog", Arg::No),
    opt('v', "", Arg::No),
    opt(IPCONF, "ipconf", Arg::Required),
    opt(NOTIFY, "notify", Arg::Required),
    opt(HOOK, "hook", Arg::Required),
    opt(ENV, "env", Arg::Required),
    opt(ACD, "acd", Arg::Required),
    opt(RAPID_COMMIT, "rapid-commit", Arg::No),
    opt(STATE, "state", Arg::Required),
    opt(ROUTES, "classless-routes", Arg::Required),
    opt(NO_DEFAULT_ROUTE, "no-default-route", Arg::No),
    opt(METRIC, "metric", Arg::Required),
    opt(PRIORITY, "priority", Arg::Required),
    opt(REJECT, "reject", Arg::Required),
    opt(IGNORE, "ignore", Arg::Required),
    opt(IPV6_ONLY, "ipv6-only", Arg::No),
    opt(DUID, "duid", Arg::Required),
    opt(ANONYMOUS, "anonymous", Arg::No),
    opt(SHOW, "show", Arg::No),
    opt(JSON, "json", Arg::No),
    opt(NO_CAGE, "no-cage", Arg::No),
];

/// What `udhcpc --help` says.
pub const USAGE: &str = "\
usage: udhcpc [-fbqRBSv] [-a[MSEC]] [-t N] [-T SEC] [-A SEC|-n] [-i IFACE] [-s PROG | --ipconf DIR] [-p PIDFILE]
              [-oC] [-r IP] [-V VENDOR] [-F NAME] [-x OPT:VAL]... [-O OPT]...
       udhcpc --show [--json] [-i IFACE] [--ipconf DIR]

  -i, --interface IFACE       interface to use (default eth0)
  -s, --script PROG           run PROG at DHCP events (default /etc/udhcpc/default.script)
  -p, --pidfile FILE          write the process id to FILE
  -t, --retries N             send up to N discover packets (default 3; 0: for ever)
  -T, --timeout SEC           pause between packets (default 3)
  -A, --tryagain SEC          wait if no lease is obtained (default 20)
  -n, --now                   exit if no lease is obtained
  -b, --background            go to the background if no lease is obtained
  -q, --quit                  exit after obtaining a lease
  -f, --foreground            stay in the foreground
  -R, --release               release the address on exit
  -r, --request IP            request this address
  -O, --request-option OPT    request option OPT (cumulative)
  -o, --no-default-options    request no options but those of -O
  -x OPT:VAL                  include option OPT in sent packets (cumulative)
  -F, --fqdn NAME             ask the server to update the DNS mapping for NAME
  -V, --vendorclass VENDOR    vendor identifier (default 'udhcp VERSION'; '': none)
  -C, --clientid-none         do not send the MAC as client identifier
  -B, --broadcast             request broadcast replies
  -a[MSEC], --arping[=MSEC]   check by ARP that nobody has the address, for MSEC (default 2000)
  -S, --syslog                log to syslog too
  -v                          say more
  --ipconf DIR                publish the lease as DIR/dhcp_IFACE.ipconf; no script is run
  --notify SERVICE            service to send `u` after publishing (default fw, below $SVDIR)
  --hook PROG                 with --ipconf: run PROG after the record has changed
  --env NAME                  pass this variable on to the program (NAME* for all that start so; cumulative)
  --rapid-commit              let the server answer a discover with the lease (RFC 4039)
  --state DIR                 remember the address in DIR, and ask for it first when started again
  --acd HOW                   look for conflicts, and defend the address: fast (within 300 ms) or rfc (RFC 5227, 4 to 7 s)
  --classless-routes HOW      routes to take from a server: safe (default; no route that could capture what a tunnel or
                              another network carries), all, default-only or no
  --no-default-route          take no default route from a server
  --metric N                  metric of the lease's routes: in the record, or as IF_METRIC for the script
  --priority N                priority of what is sent, 0 to 7 (SO_PRIORITY; in a VLAN: egress-qos-map)
  --reject ADDRESS[/LEN]      take nothing from a server in this network, and no address of it (cumulative)
  --ignore OPT                take replies as if option OPT was not in them (cumulative)
  --ipv6-only                 take no lease where the server says that IPv6 is enough (RFC 8925)
  --duid HOW                  client identifier of RFC 4361: ll (from the MAC) or uuid (from /etc/machine-id)
  --anonymous                 send nothing that tells who we are (RFC 7844)
  --show                      print the current leases, or that of -i, from --ipconf DIR and end
  --json                      with --show: as JSON
  --no-cage                   keep all privileges and see all files
Signals: USR1 renew the lease, USR2 release it
";
