//! A small DHCP server (RFC 2131) for the demo, and a scriptable hostile one for tests.
//!
//! It speaks through dhcproto and, on purpose, not through our own codec: a mistake that both sides
//! share would stay hidden. It is a thread of the test that enters the served namespace with
//! setns(2). It does not time leases: a client keeps its address for ever, and a declined address
//! is not given again.

#![expect(clippy::disallowed_methods, reason = "stamps what it saw")]

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use dhcproto::v4::{Flags, Opcode, UnknownOption};
pub use dhcproto::{Decodable, Decoder, Encodable};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};

use crate::lab::Net;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// How the server behaves.
#[derive(Debug)]
pub enum Mode {
    /// Behaves as a server should.
    Normal,
    /// Answers the next REQUEST with a NAK, and then becomes [`Mode::Normal`].
    NakOnce,
    /// Receives everything and sends nothing.
    Silent,
    /// Offers and never acknowledges: a rogue that is first with its offer and starves clients.
    OfferOnly,
    /// Broadcasts, byte for byte, what the function returns for each message.
    Custom(Custom),
}

/// A function from a client's message to the datagrams that answer it.
pub type Answer = dyn FnMut(&Message) -> Vec<Vec<u8>> + Send;

/// The function of [`Mode::Custom`].
pub struct Custom(pub Box<Answer>);

impl std::fmt::Debug for Custom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Custom")
    }
}

/// What the server offers.
#[derive(Debug)]
pub struct Config {
    /// Its behaviour. [`Dhcpd::set_mode`] changes it while the server runs.
    pub mode: Mode,
    /// The server identifier. It is not the source address: datagrams leave with the interface's
    /// address.
    pub server_id: Ipv4Addr,
    /// First address of the pool.
    pub first: Ipv4Addr,
    /// Number of addresses in the pool.
    pub count: u8,
    /// Prefix length of the subnet.
    pub prefix_len: u8,
    /// Option 3; `None` leaves it out.
    pub router: Option<Ipv4Addr>,
    /// Option 6.
    pub dns: Vec<Ipv4Addr>,
    /// Option 15.
    pub domain: Option<String>,
    /// Option 51.
    pub lease_secs: u32,
    /// Options 58 and 59 (T1, T2) in seconds, sent when present.
    pub t1_t2_secs: Option<(u32, u32)>,
    /// Further options as code and bytes. Such an option replaces the server's own of the same
    /// code.
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Config {
    /// A server at `router` for its /24: addresses .100 to .119, leases of one hour, itself as
    /// router and DNS server.
    pub fn for_router(router: Ipv4Addr) -> Config {
        let [a, b, c, _] = router.octets();
        Config {
            mode: Mode::Normal,
            server_id: router,
            first: Ipv4Addr::new(a, b, c, 100),
            count: 20,
            prefix_len: 24,
            router: Some(router),
            dns: vec![router],
            domain: None,
            lease_secs: 3600,
            t1_t2_secs: None,
            options: Vec::new(),
        }
    }
}

/// One message that the server received.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The time since the server started.
    pub at: Duration,
    /// Its type; `None` when option 53 is missing.
    pub kind: Option<MessageType>,
    /// The whole message.
    pub message: Message,
}

#[derive(Debug)]
struct Shared {
    config: Mutex<Config>,
    seen: Mutex<Vec<Seen>>,
    bindings: Mutex<Vec<(Vec<u8>, Ipv4Addr)>>,
    stop: AtomicBool,
    start: Instant,
}

/// A running server; it stops when dropped.
#[derive(Debug)]
pub struct Dhcpd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Dhcpd {
    /// Serves `interface` in `net`. The socket is bound when this returns, so the server misses no
    /// later message.
    pub fn start(net: &Net, interface: &str, config: Config) -> io::Result<Dhcpd> {
        let shared = Arc::new(Shared {
            config: Mutex::new(config),
            seen: Mutex::default(),
            bindings: Mutex::default(),
            stop: AtomicBool::new(false),
            start: Instant::now(),
        });
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (path, interface, inner) = (net.path(), interface.to_owned(), Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("dhcpd".into()).spawn(move || {
            let opened = File::open(path)
                .and_then(|namespace| Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?))
                .and_then(|()| open_socket(&interface));
            match opened {
                Ok(socket) => {
                    let _ = ready.send(Ok(()));
                    inner.serve(&socket);
                }
                Err(e) => drop(ready.send(Err(e))),
            }
        })?;
        is_ready.recv().map_err(io::Error::other)??;
        Ok(Dhcpd { shared, thread: Some(thread) })
    }

    /// Changes the behaviour for all following messages.
    pub fn set_mode(&self, mode: Mode) {
        lock(&self.shared.config).mode = mode;
    }

    /// Changes other settings for all following messages.
    pub fn configure(&self, change: impl FnOnce(&mut Config)) {
        change(&mut lock(&self.shared.config));
    }

    /// Forgets which client has which address, as if the server had been replaced.
    pub fn forget_bindings(&self) {
        lock(&self.shared.bindings).clear();
    }

    /// The moment from which [`Seen::at`] counts.
    pub fn started(&self) -> Instant {
        self.shared.start
    }

    /// All messages so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// How many messages of this type have come so far.
    pub fn count(&self, kind: MessageType) -> usize {
        lock(&self.shared.seen).iter().filter(|seen| seen.kind == Some(kind)).count()
    }
}

impl Drop for Dhcpd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_socket(interface: &str) -> io::Result<UdpSocket> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::Broadcast, &true)?;
    setsockopt(&fd, sockopt::BindToDevice, &OsString::from(interface))?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVER_PORT)))?;
    let socket = UdpSocket::from(fd);
    // This is also the longest time that a drop waits.
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    Ok(socket)
}

impl Shared {
    fn serve(&self, socket: &UdpSocket) {
        let mut buffer = [0; 2048];
        while !self.stop.load(Ordering::Relaxed) {
            let Ok((len, _)) = socket.recv_from(&mut buffer) else { continue };
            let Ok(message) = Message::decode(&mut Decoder::new(&buffer[..len])) else { continue };
            if message.opcode() != Opcode::BootRequest || message.hlen() > 16 {
                continue;
            }
            let kind = message.opts().msg_type();
            lock(&self.seen).push(Seen { at: self.start.elapsed(), kind, message: message.clone() });
            for (to, bytes) in self.answer(&message, kind) {
                // The client may be gone, or the interface may have no carrier. On a real network
                // the server would not learn of it either.
                let _ = socket.send_to(&bytes, SocketAddrV4::new(to, CLIENT_PORT));
            }
        }
    }

    fn answer(&self, message: &Message, kind: Option<MessageType>) -> Vec<(Ipv4Addr, Vec<u8>)> {
        let mut config = lock(&self.config);
        let reply = match (&mut config.mode, kind) {
            (Mode::Custom(custom), _) => {
                return custom.0(message).into_iter().map(|bytes| (Ipv4Addr::BROADCAST, bytes)).collect();
            }
            (Mode::Silent, _) | (Mode::OfferOnly, Some(MessageType::Request)) => None,
            (Mode::NakOnce, Some(MessageType::Request)) => {
                config.mode = Mode::Normal;
                Some(refusal(&config, message))
            }
            (_, Some(kind)) => self.normal(&config, message, kind),
            (_, None) => None,
        };
        // RFC 2131 4.1: an answer goes to ciaddr by unicast when there is one, and a NAK is always
        // broadcast. Without ciaddr we broadcast, too: a unicast would need an ARP entry for an
        // address that the client does not have yet.
        let unicast =
            |reply: &Message| !message.ciaddr().is_unspecified() && !reply.opts().has_msg_type(MessageType::Nak);
        let encode = |reply: Message| {
            let to = if unicast(&reply) { message.ciaddr() } else { Ipv4Addr::BROADCAST };
            Some((to, reply.to_vec().ok()?))
        };
        reply.and_then(encode).into_iter().collect()
    }

    fn normal(&self, config: &Config, message: &Message, kind: MessageType) -> Option<Message> {
        match kind {
            MessageType::Discover => {
                let address = self.address_for(config, message.chaddr())?;
                Some(grant(config, message, MessageType::Offer, address))
            }
            MessageType::Request => {
                if let Some(DhcpOption::ServerIdentifier(id)) = message.opts().get(OptionCode::ServerIdentifier)
                    && *id != config.server_id
                {
                    return None;
                }
                let asked = match message.opts().get(OptionCode::RequestedIpAddress) {
                    Some(DhcpOption::RequestedIpAddress(asked)) => *asked,
                    _ => message.ciaddr(),
                };
                match self.address_for(config, message.chaddr()) {
                    Some(address) if address == asked => Some(grant(config, message, MessageType::Ack, address)),
                    _ => Some(refusal(config, message)),
                }
            }
            MessageType::Inform => Some(grant(config, message, MessageType::Ack, Ipv4Addr::UNSPECIFIED)),
            MessageType::Decline => {
                // An empty hardware address keeps the address taken.
                for (owner, _) in lock(&self.bindings).iter_mut().filter(|(owner, _)| owner == message.chaddr()) {
                    owner.clear();
                }
                None
            }
            _ => None,
        }
    }

    /// The client's address: the one that it has, else the first free one of the pool.
    fn address_for(&self, config: &Config, chaddr: &[u8]) -> Option<Ipv4Addr> {
        let mut bindings = lock(&self.bindings);
        if let Some((_, address)) = bindings.iter().find(|(owner, _)| owner == chaddr) {
            return Some(*address);
        }
        let pool = (0..u32::from(config.count)).map(|i| Ipv4Addr::from(u32::from(config.first) + i));
        let address = pool.into_iter().find(|address| bindings.iter().all(|(_, taken)| taken != address))?;
        bindings.push((chaddr.to_vec(), address));
        Some(address)
    }
}

fn reply_to(message: &Message, config: &Config, kind: MessageType) -> Message {
    let mut reply = Message::new_with_id(
        message.xid(),
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        message.chaddr(),
    );
    reply.set_opcode(Opcode::BootReply).set_flags(Flags::from(u16::from(message.flags())));
    reply.opts_mut().insert(DhcpOption::MessageType(kind));
    reply.opts_mut().insert(DhcpOption::ServerIdentifier(config.server_id));
    reply
}

/// Option 50 of a message.
pub fn requested(message: &Message) -> Option<Ipv4Addr> {
    match message.opts().get(OptionCode::RequestedIpAddress)? {
        DhcpOption::RequestedIpAddress(ip) => Some(*ip),
        _ => None,
    }
}

/// A NAK as this server sends it. Public for [`Mode::Custom`].
pub fn refusal(config: &Config, message: &Message) -> Message {
    reply_to(message, config, MessageType::Nak)
}

/// An OFFER or ACK of `address` as this server sends it. Public for [`Mode::Custom`].
pub fn grant(config: &Config, message: &Message, kind: MessageType, address: Ipv4Addr) -> Message {
    let mut reply = reply_to(message, config, kind);
    reply.set_yiaddr(address);
    let options = reply.opts_mut();
    let mask = u32::MAX.checked_shl(32 - u32::from(config.prefix_len)).unwrap_or(0);
    options.insert(DhcpOption::SubnetMask(Ipv4Addr::from(mask)));
    if !address.is_unspecified() {
        options.insert(DhcpOption::AddressLeaseTime(config.lease_secs));
        if let Some((t1, t2)) = config.t1_t2_secs {
            options.insert(DhcpOption::Renewal(t1));
            options.insert(DhcpOption::Rebinding(t2));
        }
    }
    if let Some(router) = config.router {
        options.insert(DhcpOption::Router(vec![router]));
    }
    if !config.dns.is_empty() {
        options.insert(DhcpOption::DomainNameServer(config.dns.clone()));
    }
    if let Some(domain) = &config.domain {
        options.insert(DhcpOption::DomainName(domain.clone()));
    }
    for (code, bytes) in &config.options {
        let code = OptionCode::from(*code);
        options.remove(code);
        options.insert(DhcpOption::Unknown(UnknownOption::new(code, bytes.clone())));
    }
    reply
}
