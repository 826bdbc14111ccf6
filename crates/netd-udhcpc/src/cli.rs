//! The command line: udhcpc's options, and ours, which have no short form.
//!
//! Pure. Syntax is applet::getopt's, the table is table.rs's; here is what each option means.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use applet::getopt::Getopt;
use netd::given::CliError;
use netd_core::acd::Timing;
use netd_core::net::{IfName, Prefix, decimal};

use crate::client::Config;
use crate::duid::Duid;
use crate::gate::Gate;
use crate::message::{Template, fqdn};
use crate::options::{
    self, CLIENT_ID, DEFAULT_PARAMETERS, IPV6_ONLY_PREFERRED, LEASE, MESSAGE_TYPE, MS_STATIC_ROUTES, OVERLOAD,
    SERVER_ID, STATIC_ROUTES, SUBNET, Shape, VENDOR_CLASS,
};
use crate::routes::Policy;
use crate::schedule::Schedule;
use crate::show::Show;

mod table;

pub use table::USAGE;
use table::{
    ACD, ANONYMOUS, DUID, ENV, HOOK, IGNORE, IPCONF, IPV6_ONLY, JSON, METRIC, NO_CAGE, NO_DEFAULT_ROUTE, NOTIFY,
    PRIORITY, RAPID_COMMIT, REJECT, ROUTES, SHOW, STATE, TABLE,
};

/// Where Debian keeps it.
const DEFAULT_SCRIPT: &str = "/etc/udhcpc/default.script";
/// What udhcpc looks like to servers, with our version.
const DEFAULT_VENDOR: &str = concat!("udhcp ", env!("CARGO_PKG_VERSION"));
/// An option's data is cut here, as udhcpc does.
const MAX_DATA: usize = 254;

/// udhcpc's `-a` without a number.
const ARPING: Duration = Duration::from_millis(2000);

/// What becomes of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handling {
    /// A program is run.
    Script {
        /// The program.
        program: OsString,
        /// More variables to pass on.
        pass: Vec<String>,
    },
    /// A record is published.
    Ipconf {
        /// Its directory.
        dir: PathBuf,
        /// The service to tell.
        notify: OsString,
        /// `--hook`
        hook: Option<Hook>,
    },
}

/// A program that is run after the record has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The program.
    pub program: OsString,
    /// More variables to pass on.
    pub pass: Vec<String>,
}

/// All that the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Interface as given, perhaps with an alias: `eth0:1`.
    pub interface: String,
    device: IfName,
    /// What becomes of a lease.
    pub handling: Handling,
    /// `--state`
    pub state: Option<PathBuf>,
    /// `-p`
    pub pidfile: Option<PathBuf>,
    /// `-S`
    pub syslog: bool,
    /// Number of `-v`.
    pub verbosity: u8,
    /// Not `--no-cage`.
    pub cage: bool,
    /// The machine's part.
    pub config: Config,
    /// The messages' part.
    pub template: Template,
    /// `--reject`, `--ignore`
    pub gate: Gate,
    /// `--classless-routes`
    pub routes: Policy,
    /// Not `--no-default-route`.
    pub default_route: bool,
    /// `--metric`
    pub metric: Option<u32>,
    /// `--priority`
    pub priority: Option<u8>,
    /// `--duid`: the client identifier is to be made of this.
    pub duid: Option<Duid>,
}

/// The two things that the program does.
#[derive(Clone, Debug)]
pub enum Command {
    /// Be a client.
    Run(Box<Options>),
    /// Print leases.
    Show(Show),
}

impl Options {
    /// Whether it may go to the background.
    pub fn may_leave(&self) -> bool {
        self.config.background_when_bound || self.config.background_on_failure
    }

    /// The device: an alias without its suffix.
    pub fn device(&self) -> &IfName {
        &self.device
    }
}

#[derive(Default)]
struct Raw {
    interface: Option<String>,
    script: Option<OsString>,
    ipconf: Option<PathBuf>,
    notify: Option<OsString>,
    hook: Option<OsString>,
    pass: Vec<String>,
    state: Option<PathBuf>,
    pidfile: Option<PathBuf>,
    retries: Option<u32>,
    timeout: Option<Duration>,
    tryagain: Option<Duration>,
    foreground: bool,
    no_defaults: bool,
    parameters: Vec<u8>,
    extra: Vec<(u8, Vec<u8>)>,
    vendor: Option<String>,
    no_client_id: bool,
    broadcast: bool,
    syslog: bool,
    verbosity: u8,
    no_cage: bool,
    config: Config,
    gate: Gate,
    routes: Policy,
    no_default_route: bool,
    metric: Option<u32>,
    priority: Option<u8>,
    duid: Option<Duid>,
    show: bool,
    json: bool,
}

/// Reads the arguments, without the applet's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, CliError> {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.iter().any(|a| a == "--help") {
        return Err(CliError::Help);
    }
    let mut raw = Raw::default();
    let mut getopt = Getopt::new(TABLE, args);
    for given in getopt.by_ref() {
        let (key, value) = given.map_err(|e| CliError::Usage(e.to_string()))?;
        raw.take(key, value.unwrap_or_default())?;
    }
    if let Some(operand) = getopt.operands().first() {
        return Err(CliError::Usage(format!("unexpected argument {operand:?}")));
    }
    if raw.show {
        raw.interface.as_deref().map(device).transpose()?;
        return Ok(Command::Show(Show { interface: raw.interface, dir: raw.ipconf, json: raw.json }));
    }
    raw.finish().map(|options| Command::Run(Box::new(options)))
}

fn text(value: OsString) -> Result<String, CliError> {
    value.into_string().map_err(|v| CliError::Fatal(format!("not UTF-8: {v:?}")))
}

/// The interface of a name, which may have an alias behind a colon.
fn device(name: &str) -> Result<IfName, CliError> {
    let (device, alias) = name.split_once(':').unwrap_or((name, "0"));
    let good = IfName::parse(device).filter(|_| IfName::parse(alias).is_some());
    good.ok_or_else(|| CliError::Fatal(format!("invalid interface name '{}': {}", name.escape_debug(), IfName::RULE)))
}

fn number(value: OsString) -> Result<u32, CliError> {
    let value = text(value)?;
    value.parse().map_err(|_| CliError::Fatal(format!("invalid number '{}'", value.escape_debug())))
}

fn seconds(value: OsString) -> Result<Duration, CliError> {
    number(value).map(|secs| Duration::from_secs(secs.into()))
}

fn option_code(name: &str) -> Result<u8, CliError> {
    options::parse_code(name).ok_or_else(|| {
        CliError::Fatal(format!("unknown option '{}', known options: {}", name.escape_debug(), options::names()))
    })
}

/// What a VLAN can tell: IEEE 802.1Q.
fn priority(value: OsString) -> Result<u8, CliError> {
    let value = text(value)?;
    let priority = decimal(&value).filter(|priority| *priority <= 7);
    priority.ok_or_else(|| CliError::Fatal(format!("invalid --priority '{}'", value.escape_debug())))
}

/// `ADDRESS[/LEN]`
fn network(value: OsString) -> Result<Prefix, CliError> {
    let value = text(value)?;
    let network = Prefix::parse(&value).filter(|network| network.ip.is_ipv4()).map(Prefix::network);
    network.ok_or_else(|| CliError::Fatal(format!("invalid --reject '{}'", value.escape_debug())))
}

/// An option that a lease can do without.
fn ignored(name: &str) -> Result<u8, CliError> {
    let code = option_code(name)?;
    if matches!(code, LEASE | OVERLOAD | MESSAGE_TYPE | SERVER_ID) {
        return Err(CliError::Fatal(format!("can't --ignore '{}': no lease goes without it", name.escape_debug())));
    }
    Ok(code)
}

impl Raw {
    fn take(&mut self, key: char, value: OsString) -> Result<(), CliError> {
        match key {
            'i' => self.interface = Some(text(value)?),
            's' => self.script = Some(value),
            'p' => self.pidfile = Some(value.into()),
            't' => self.retries = Some(number(value)?),
            'T' => self.timeout = Some(seconds(value)?),
            'A' => self.tryagain = Some(seconds(value)?),
            'n' => self.config.exit_on_failure = true,
            'b' => self.config.background_on_failure = true,
            'q' => self.config.quit = true,
            'f' => self.foreground = true,
            'R' => self.config.release = true,
            'r' => {
                let ip: Ipv4Addr = text(value)?.parse().map_err(|_| CliError::Usage("bad address for -r".into()))?;
                self.config.requested = Some(ip).filter(|ip| !ip.is_unspecified());
            }
            'O' => self.parameters.push(option_code(&text(value)?)?),
            'o' => self.no_defaults = true,
            'x' => self.extra_option(&text(value)?)?,
            'F' => self.add_extra(fqdn(&text(value)?), false),
            'V' => self.vendor = Some(text(value)?),
            'C' => self.no_client_id = true,
            'B' => self.broadcast = true,
            'a' => {
                let wait = if value.is_empty() { ARPING } else { Duration::from_millis(number(value)?.into()) };
                self.config.acd = Some(Timing::one_probe(wait));
            }
            'S' => self.syslog = true,
            'v' => self.verbosity = self.verbosity.saturating_add(1),
            _ => self.take_ours(key, value)?,
        }
        Ok(())
    }

    /// The options that udhcpc does not have.
    fn take_ours(&mut self, key: char, value: OsString) -> Result<(), CliError> {
        match key {
            NO_CAGE => self.no_cage = true,
            RAPID_COMMIT => self.config.rapid_commit = true,
            ACD => match value.to_str() {
                Some("fast") => self.config.acd = Some(Timing::FAST),
                Some("rfc") => self.config.acd = Some(Timing::RFC5227),
                _ => return Err(CliError::Usage("--acd is fast or rfc".into())),
            },
            ROUTES => {
                self.routes = value
                    .to_str()
                    .and_then(Policy::parse)
                    .ok_or_else(|| CliError::Usage("--classless-routes is safe, all, default-only or no".into()))?;
            }
            NO_DEFAULT_ROUTE => self.no_default_route = true,
            METRIC => self.metric = Some(number(value)?),
            PRIORITY => self.priority = Some(priority(value)?),
            REJECT => self.gate.reject.push(network(value)?),
            IGNORE => self.gate.ignore.push(ignored(&text(value)?)?),
            IPV6_ONLY => self.config.ipv6_only = true,
            DUID => match value.to_str() {
                Some("ll") => self.duid = Some(Duid::LinkLayer),
                Some("uuid") => self.duid = Some(Duid::Uuid),
                _ => return Err(CliError::Usage("--duid is ll or uuid".into())),
            },
            ANONYMOUS => self.config.anonymous = true,
            SHOW => self.show = true,
            JSON => self.json = true,
            STATE => self.state = Some(value.into()),
            IPCONF => self.ipconf = Some(value.into()),
            NOTIFY => self.notify = Some(value),
            HOOK => self.hook = Some(value).filter(|program| !program.is_empty()),
            ENV => self.pass.push(text(value)?),
            _ => {}
        }
        Ok(())
    }

    /// `OPT:VAL`: a named option in its own notation, a number in hexadecimal or as a quoted
    /// string.
    fn extra_option(&mut self, given: &str) -> Result<(), CliError> {
        let bad = || CliError::Fatal(format!("invalid -x '{}'", given.escape_debug()));
        let (name, value) = given.split_once([' ', '\t', '=', ':']).ok_or_else(bad)?;
        let code = option_code(name)?;
        let shape = options::shape_of_name(name);
        let data = match shape.filter(|s| *s != Shape::Raw) {
            Some(shape) => options::encode_value(shape, value.trim_start()).ok_or_else(bad)?,
            None => match quoted(value) {
                Some(text) => text.bytes().take(MAX_DATA).collect(),
                None => options::parse_hex(value).ok_or_else(bad)?,
            },
        };
        let list = matches!(shape, Some(Shape::IpList | Shape::IpPairs | Shape::Routes | Shape::Names));
        self.add_extra((code, data), list);
        Ok(())
    }

    /// The same code twice: a list grows, anything else stays what it was first.
    fn add_extra(&mut self, (code, data): (u8, Vec<u8>), list: bool) {
        match self.extra.iter_mut().find(|(c, _)| *c == code) {
            Some((_, old)) if list => old.extend(data),
            Some(_) => {}
            None => self.extra.push((code, data)),
        }
    }

    /// What excludes what.
    fn check(&self) -> Result<(), CliError> {
        let own_client_id = self.no_client_id || self.extra.iter().any(|(c, _)| *c == CLIENT_ID);
        let tells =
            self.state.is_some() || !self.extra.is_empty() || self.vendor.as_ref().is_some_and(|v| !v.is_empty());
        let wants = self.config.requested.is_some() || self.config.rapid_commit;
        let wrong = if self.json {
            "--json needs --show"
        } else if self.script.is_some() && self.ipconf.is_some() {
            "-s and --ipconf exclude each other"
        } else if self.hook.is_some() && self.ipconf.is_none() {
            "--hook needs --ipconf"
        } else if self.ipconf.is_some() && self.state == self.ipconf {
            // fw would take one file for the other.
            "--state and --ipconf need directories of their own"
        } else if self.duid.is_some() && own_client_id {
            "--duid excludes -C and another client identifier"
        } else if self.config.anonymous && (tells || wants || self.duid.is_some()) {
            "--anonymous excludes -x, -F, -V, -r, --duid, --rapid-commit and --state"
        } else {
            return Ok(());
        };
        Err(CliError::Usage(wrong.into()))
    }

    /// The options to request: udhcpc's defaults for a script, the fields of the record with
    /// `--ipconf`, and as few as possible with `--anonymous` (RFC 7844 section 3.6).
    fn parameters(&self, native: bool) -> Vec<u8> {
        let defaults: &[u8] = match (self.no_defaults, self.config.anonymous, native) {
            (true, _, _) => &[],
            (false, true, _) => &options::ANONYMOUS_PARAMETERS,
            (false, false, false) => &DEFAULT_PARAMETERS,
            (false, false, true) => &options::NATIVE_PARAMETERS,
        };
        let mut parameters = [self.parameters.as_slice(), defaults].concat();
        if self.config.ipv6_only {
            parameters.push(IPV6_ONLY_PREFERRED);
        }
        // udhcpc and RFC 7844 section 3.6 sort them by number; RFC 3442 wants its routes before the
        // router, since a server leaves out what does not fit at the end.
        let early = |code| native && !self.config.anonymous && matches!(code, STATIC_ROUTES | MS_STATIC_ROUTES);
        applet::sort::sort_by_key(&mut parameters, |code| (*code != SUBNET && !early(*code), *code));
        parameters.dedup();
        parameters.retain(|code| !self.gate.ignore.contains(code));
        parameters
    }

    fn finish(mut self) -> Result<Options, CliError> {
        self.check()?;
        let parameters = self.parameters(self.ipconf.is_some());
        let pass = std::mem::take(&mut self.pass);
        let handling = match self.ipconf {
            Some(dir) => Handling::Ipconf {
                dir,
                notify: self.notify.unwrap_or_else(|| "fw".into()),
                hook: self.hook.map(|program| Hook { program, pass }),
            },
            None => Handling::Script { program: self.script.unwrap_or_else(|| DEFAULT_SCRIPT.into()), pass },
        };
        let vendor = self.vendor.unwrap_or_else(|| DEFAULT_VENDOR.into());
        if !vendor.is_empty() && !self.config.anonymous && !self.extra.iter().any(|(c, _)| *c == VENDOR_CLASS) {
            self.extra.push((VENDOR_CLASS, vendor.bytes().take(MAX_DATA).collect()));
        }
        let own_client_id = self.extra.iter().any(|(c, _)| *c == CLIENT_ID);
        let schedule = Schedule::from_options(self.retries, self.timeout, self.tryagain);
        // udhcpc: -b clears -n.
        let exit_on_failure = self.config.exit_on_failure && !self.config.background_on_failure;
        let interface = self.interface.unwrap_or_else(|| "eth0".into());
        Ok(Options {
            device: device(&interface)?,
            interface,
            handling,
            state: self.state,
            pidfile: self.pidfile,
            syslog: self.syslog,
            verbosity: self.verbosity,
            cage: !self.no_cage,
            config: Config { schedule, exit_on_failure, background_when_bound: !self.foreground, ..self.config },
            template: Template {
                parameters,
                extra: self.extra,
                default_client_id: !self.no_client_id && !own_client_id && self.duid.is_none(),
                broadcast: self.broadcast,
                max_message: 0,
                anonymous: self.config.anonymous,
            },
            gate: self.gate,
            routes: self.routes,
            default_route: !self.no_default_route,
            metric: self.metric,
            priority: self.priority,
            duid: self.duid,
        })
    }
}

/// The text between a pair of quotes of one kind.
fn quoted(value: &str) -> Option<&str> {
    ['"', '\''].into_iter().find_map(|q| value.strip_prefix(q)?.strip_suffix(q))
}

#[cfg(test)]
mod tests;
