//! The sockets of one interface: what comes in, decoded, and the ways out.
//!
//! A shell. The packet socket is open all the time, and bound anew when the interface was replaced;
//! the one for ARP from when an address is first watched; the UDP socket from the first unicast of
//! a renewal until its answer, so that the kernel knows the port. It decides nothing. Called by
//! daemon.rs.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use netd::daemon::Log;
use netd::packet::{self, BROADCAST, ETHERTYPE_IP, Interface, PacketSocket, Received};
use netd_core::wire::arp::{self, Arp};

use crate::client::{Destination, Watch};
use crate::frame::{self, CLIENT_PORT, SERVER_PORT};
use crate::message::{self, Reply};

/// The largest Ethernet frames that a server can send us whole; a longer one is seen as cut and
/// dropped.
const BUFFER: usize = 4096;

/// All of them.
pub(crate) struct Sockets {
    device: String,
    interface: Interface,
    dhcp: PacketSocket,
    arp: Option<PacketSocket>,
    watched: Watch,
    udp: Option<UdpSocket>,
    buffer: Vec<u8>,
    /// `--priority` of what we send.
    priority: Option<u8>,
    /// It could not be set, and that was logged.
    unranked: bool,
}

/// What came.
pub(crate) enum Heard {
    /// A reply, and the IP and Ethernet addresses that it came from.
    Reply(Box<Reply>, Ipv4Addr, [u8; 6]),
    /// A reply that is none, and why, in words for the log.
    Refused(String),
    /// An ARP message that the filter let through.
    Arp(Arp),
    /// Something that does not concern us, in words for `-v`.
    Other(String),
    /// An error of the socket: the interface may have gone.
    Failed(io::Error),
}

/// What has become of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is as it was, as far as we care.
    Same,
    /// It has another Ethernet address.
    Mac([u8; 6]),
    /// No interface has this name any more.
    Gone,
}

impl Sockets {
    /// On an interface that is there.
    pub(crate) fn open(device: &str, interface: Interface, priority: Option<u8>, log: &Log) -> io::Result<Sockets> {
        let mut sockets = Sockets {
            device: device.to_owned(),
            interface,
            dhcp: open(&interface)?,
            arp: None,
            watched: Watch::Nothing,
            udp: None,
            buffer: vec![0; BUFFER],
            priority,
            unranked: false,
        };
        sockets.rank(log);
        Ok(sockets)
    }

    /// Gives all sockets their priority. Without it a message is still a message.
    fn rank(&mut self, log: &Log) {
        let Some(priority) = self.priority else { return };
        let done = packet::set_priority(&self.dhcp, priority)
            .and_then(|()| self.arp.as_ref().map_or(Ok(()), |socket| packet::set_priority(socket, priority)))
            .and_then(|()| self.udp.as_ref().map_or(Ok(()), |socket| packet::set_priority(socket, priority)));
        if let Err(e) = &done
            && !self.unranked
        {
            log.info(format_args!("can't set the priority {priority}: {e}"));
        }
        self.unranked = done.is_err();
    }

    /// The interface as it was seen last.
    pub(crate) fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Waits for the next message. Safe to drop and to call again.
    pub(crate) async fn heard(&mut self) -> Heard {
        let mut arp_buffer = [0; arp::LEN];
        tokio::select! {
            biased;
            // Before an ACK: after a stall, an objection that waits must be heard before the
            // address is found free.
            received = recv_if_open(self.arp.as_ref(), &mut arp_buffer) => match received {
                // Padding makes it longer than the buffer, and is not looked at.
                Ok(received) => {
                    let bytes = arp_buffer.get(..received.len).unwrap_or_default();
                    Arp::heard(bytes, received.from, received.unicast)
                        .map_or_else(|| Heard::Other("dropping an odd ARP message".into()), Heard::Arp)
                }
                Err(e) => Heard::Other(format!("receiving ARP: {e}")),
            },
            received = self.dhcp.recv(&mut self.buffer) => match received {
                Ok(received) => self.decode(received),
                Err(e) => Heard::Failed(e),
            },
        }
    }

    fn decode(&self, received: Received) -> Heard {
        if received.truncated {
            return Heard::Refused("dropping a packet larger than the buffer".into());
        }
        let captured = self.buffer.get(..received.len).unwrap_or_default();
        let datagram = match frame::parse(captured, received.checksum_ready) {
            Ok(datagram) => datagram,
            Err(e) => return Heard::Refused(format!("dropping a packet: {e}")),
        };
        match message::decode(datagram.payload, self.interface.mac) {
            Ok(reply) => Heard::Reply(Box::new(reply), datagram.from, received.from),
            Err(e) => Heard::Refused(format!("dropping a message from {}: {e}", datagram.from)),
        }
    }

    /// Looks whether the interface is still the one that the sockets are bound to, with the MAC
    /// that the filter knows.
    pub(crate) fn refresh(&mut self, log: &Log) -> io::Result<Found> {
        let Some(found) = packet::interface(&self.device)? else { return Ok(Found::Gone) };
        let old = std::mem::replace(&mut self.interface, found);
        if found.index != self.dhcp.index() {
            self.dhcp = open(&found)?;
            self.arp = None;
            self.watch(self.watched, log);
            self.rank(log);
        } else if found.mac != old.mac {
            self.dhcp.set_filter(&frame::filter(found.mac))?;
        }
        Ok(if found.mac == old.mac { Found::Same } else { Found::Mac(found.mac) })
    }

    /// Lets this ARP through.
    pub(crate) fn watch(&mut self, watch: Watch, log: &Log) {
        self.watched = watch;
        let filter = match watch {
            Watch::Nothing => arp::deaf(),
            Watch::Address(ip) => arp::filter(ip),
            Watch::Answers { ip, from } => arp::filter_with(ip, from),
        };
        let done = match &self.arp {
            Some(socket) => socket.set_filter(&filter),
            None if watch == Watch::Nothing => Ok(()),
            None => PacketSocket::open(self.interface.index, arp::ETHERTYPE_ARP, &filter).map(|socket| {
                self.arp = Some(socket);
                self.rank(log);
            }),
        };
        if let Err(e) = done {
            log.info(format_args!("can't listen to ARP: {e}"));
        }
    }

    pub(crate) fn send_arp(&self, arp: &Arp, log: &Log) {
        let to = if arp.target_mac == [0; 6] { BROADCAST } else { arp.target_mac };
        if let Some(Err(e)) = self.arp.as_ref().map(|socket| socket.send(&arp.encode(), to)) {
            log.debug(format_args!("can't send ARP: {e}"));
        }
    }

    /// `from`: our address, if we have one.
    pub(crate) fn send(&mut self, payload: &[u8], from: Ipv4Addr, to: Destination, log: &Log) -> io::Result<()> {
        match to {
            Destination::Broadcast => self.dhcp.send(&frame::build(from, Ipv4Addr::BROADCAST, payload), BROADCAST),
            Destination::Server { from, to, mac, routed: true } => self.unicast(from, to, payload, log).or_else(|e| {
                // Our address is not on the interface: what handed us the lease is on the link.
                log.debug(format_args!("unicast by UDP: {e}"));
                let mac = if mac == [0; 6] { BROADCAST } else { mac };
                self.dhcp.send(&frame::build(from, to, payload), mac)
            }),
            Destination::Server { from, to, mac, routed: false } => {
                self.dhcp.send(&frame::build(from, to, payload), mac)
            }
        }
    }

    fn unicast(&mut self, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8], log: &Log) -> io::Result<()> {
        if self.udp.is_none() {
            self.udp = Some(packet::udp_from(&self.device, SocketAddrV4::new(from, CLIENT_PORT))?);
            self.rank(log);
        }
        let to = SocketAddrV4::new(to, SERVER_PORT);
        self.udp.as_ref().map_or(Ok(()), |socket| socket.send_to(payload, to).map(drop))
    }

    /// No answer to a unicast is waited for any more.
    pub(crate) fn close_udp(&mut self) {
        self.udp = None;
    }
}

/// What comes on a socket; for ever nothing without one.
async fn recv_if_open(socket: Option<&PacketSocket>, buffer: &mut [u8]) -> io::Result<Received> {
    match socket {
        Some(socket) => socket.recv(buffer).await,
        None => std::future::pending().await,
    }
}

fn open(interface: &Interface) -> io::Result<PacketSocket> {
    PacketSocket::open(interface.index, ETHERTYPE_IP, &frame::filter(interface.mac)).map_err(|e| {
        let hint = if e.kind() == io::ErrorKind::PermissionDenied { " (CAP_NET_RAW is missing)" } else { "" };
        io::Error::new(e.kind(), format!("can't open packet socket: {e}{hint}"))
    })
}
