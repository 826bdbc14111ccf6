//! Packet sockets, with the system calls that nix has no safe form of.
//!
//! ONE AF_PACKET SOCK_DGRAM socket per daemon, opened with protocol 0, the filter attached before
//! the one bind: binding a socket that was opened with a protocol costs 8-16 ms in the kernel
//! (synchronize_net), each close as much. It sends, too. Frames start at the network header. Also
//! here: the UDP and ICMP sockets for unicasts from an address of ours, and which interface has
//! which index and MAC. Called by udhcpc, zcip and the pinger; knows no protocol. Sources:
//! packet(7), socket(7), bpf(2).
#![expect(unsafe_code, reason = "nix has no safe sockaddr_ll, SO_ATTACH_FILTER or PACKET_AUXDATA")]

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::ready::watch;
use crate::{clock, link};
use netd_core::pace::Pace;
use netd_core::wire::bpf::Op::{Give, Label, Unless, Word};
use netd_core::wire::bpf::Test::Equal;
use netd_core::wire::bpf::{AD_IFINDEX, AD_PKTTYPE, DROP, Instruction, assemble};

/// ETH_P_IP.
pub const ETHERTYPE_IP: u16 = 0x0800;
/// linux/if_packet.h: the frame is for another station, or in a VLAN that this host is not in.
const PACKET_OTHERHOST: u32 = 3;
/// Ethernet's broadcast address.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// What kind of addresses the stations of a link have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardware {
    /// Ethernet's, of 6 bytes.
    Ethernet,
    /// None: two stations, and packets without a header of the link. Raw-ip modems, PPP, tun.
    Bare,
    /// Others: InfiniBand, tunnels.
    Other,
}

/// What the kernel says about an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Kernel's number of it.
    pub index: u32,
    /// Its Ethernet address; zero where it has none.
    pub mac: [u8; 6],
    /// What kind of addresses its stations have.
    pub hardware: Hardware,
    /// Administratively up.
    pub up: bool,
    /// Stations are found by ARP: not IFF_NOARP, netdevice(7).
    pub arp: bool,
    /// Longest packet in bytes; 0 when not told.
    pub mtu: u32,
}

/// Looks an interface up by name.
pub fn interface(name: &str) -> io::Result<Option<Interface>> {
    let found = link::find(name)?;
    Ok(found.map(|link| Interface {
        index: link.ifindex,
        mac: link.mac.unwrap_or_default(),
        hardware: match link.mac {
            Some(_) => Hardware::Ethernet,
            None if link.addressed => Hardware::Other,
            None => Hardware::Bare,
        },
        up: link.admin_up,
        arp: link.arp,
        mtu: link.mtu,
    }))
}

/// One received frame: its bytes are in the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the buffer.
    pub len: usize,
    /// The frame was longer than the buffer.
    pub truncated: bool,
    /// The sender's Ethernet address.
    pub from: [u8; 6],
    /// The frame was sent to our Ethernet address and not to all stations, or to a group.
    pub unicast: bool,
    /// False when the transport checksum is still to be filled in by a card that the frame never
    /// went through.
    pub checksum_ready: bool,
}

/// A packet socket on one interface, registered with the tokio runtime it was made in.
pub struct PacketSocket {
    fd: AsyncFd<OwnedFd>,
    ethertype: u16,
    index: u32,
    pace: Cell<Pace>,
}

impl PacketSocket {
    /// Opens it on the interface with this index; only frames of `ethertype` that pass `filter`
    /// ever arrive.
    pub fn open(index: u32, ethertype: u16, filter: &[Instruction]) -> io::Result<PacketSocket> {
        // A protocol of 0 receives nothing: no frame slips in before the filter is there.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket::socket(AddressFamily::Packet, SockType::Datagram, flags, None)?;
        attach_filter(&fd, &on_link(index, filter))?;
        set_auxdata(&fd)?;
        bind(&fd, &link_address(index, ethertype, BROADCAST))?;
        // packet(7): on an interface that is down, bind leaves ENETDOWN behind. The first message
        // would be refused for it, although the interface was brought up since.
        socket::getsockopt(&fd, sockopt::SocketError)?;
        Ok(PacketSocket { fd: watch(fd)?, ethertype, index, pace: Cell::default() })
    }

    /// Replaces the filter in one step.
    pub fn set_filter(&self, filter: &[Instruction]) -> io::Result<()> {
        attach_filter(self.fd.get_ref(), &on_link(self.index, filter))
    }

    /// Index of the interface it is bound to.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Sends one frame, from its network header on, to an Ethernet address. Never waits: a full
    /// queue is an error.
    pub fn send(&self, frame: &[u8], to: [u8; 6]) -> io::Result<()> {
        let address = link_address(self.index, self.ethertype, to);
        // SAFETY: frame and address are valid for the lengths given, and the call keeps neither.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for the next frame; of a flood, at a bounded pace. Safe to drop and to call again.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut pace = self.pace.get();
        if let Some(rest) = pace.rest(clock::now()) {
            clock::sleep(rest).await;
        }
        loop {
            // A device that goes down or away is reported as an error, not as something to read.
            let mut ready = self.fd.ready(Interest::READABLE | Interest::ERROR).await?;
            if let Ok(done) = ready.try_io(|fd| receive(fd.get_ref(), buffer)) {
                pace.count(clock::now());
                self.pace.set(pace);
                return done;
            }
        }
    }
}

/// A UDP socket that sends from `from` through `device` and makes the kernel know the port, so that
/// the answer is not met with "port unreachable". The answer itself is taken from the packet
/// socket; this socket is never read.
pub fn udp_from(device: &str, from: SocketAddrV4) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket::socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::BindToDevice, &device.into())?;
    socket::bind(fd.as_raw_fd(), &SockaddrIn::from(from))?;
    Ok(UdpSocket::from(fd))
}

/// A raw ICMP socket that sends from `from` through `device` and receives what passes `filter`.
/// Such a socket is used as a UDP one is, with 0 for every port: raw(7). The kernel finds a way
/// through `device` alone, however its other routes are ranked. It needs CAP_NET_RAW.
pub fn icmp_from(device: &str, from: Ipv4Addr, filter: &[Instruction]) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket::socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp)?;
    attach_filter(&fd, filter)?;
    setsockopt(&fd, sockopt::BindToDevice, &device.into())?;
    socket::bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    Ok(UdpSocket::from(fd))
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}

/// Gives what the socket sends this priority, 0 to 7: SO_PRIORITY, socket(7). A VLAN device makes
/// its priority code point of it (egress-qos-map), and a queueing discipline its band. 7 needs
/// CAP_NET_ADMIN, or CAP_NET_RAW where the kernel is newer.
pub fn set_priority(socket: &impl AsFd, priority: u8) -> io::Result<()> {
    Ok(setsockopt(&socket.as_fd(), sockopt::Priority, &i32::from(priority))?)
}

fn link_address(index: u32, ethertype: u16, to: [u8; 6]) -> libc::sockaddr_ll {
    let [a, b, c, d, e, f] = to;
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: i32::try_from(index).unwrap_or_default(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [a, b, c, d, e, f, 0, 0],
    }
}

/// Prepends two checks to `filter`: the frame is on this interface, and it is not addressed to
/// another host. A packet socket is also given the frames of VLANs on its interface, with and
/// without a device for them. These are other networks, in which other hosts may have our
/// addresses.
fn on_link(index: u32, filter: &[Instruction]) -> Vec<Instruction> {
    let own = assemble(&[
        Word(AD_IFINDEX),
        Unless(Equal(index), "drop"),
        Word(AD_PKTTYPE),
        Unless(Equal(PACKET_OTHERHOST), "filter"),
        Label("drop"),
        Give(DROP),
        Label("filter"),
    ]);
    [&own, filter].concat()
}

fn attach_filter(fd: &OwnedFd, filter: &[Instruction]) -> io::Result<()> {
    let mut code: Vec<libc::sock_filter> =
        filter.iter().map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
    let len = u16::try_from(code.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len, filter: code.as_mut_ptr() };
    // SAFETY: program points to `len` instructions that live until after the call; the kernel
    // copies them.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    check(result)
}

fn set_auxdata(fd: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` is an int of the size given.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_AUXDATA,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(result)
}

fn bind(fd: &OwnedFd, address: &libc::sockaddr_ll) -> io::Result<()> {
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: address is a sockaddr_ll of the size given.
    check(unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(address).cast(), len) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Room for one control message, aligned as cmsghdr asks.
#[repr(C, align(8))]
struct Control([u8; 64]);

fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut from = link_address(0, 0, [0; 6]);
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is plain data for which all zero is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: name, buffer and control are valid for writing for the lengths set above.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, 0) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    let [a, b, c, d, e, f, ..] = from.sll_addr;
    Ok(Received {
        len,
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        from: [a, b, c, d, e, f],
        unicast: from.sll_pkttype == libc::PACKET_HOST,
        checksum_ready: aux_status(&message).is_none_or(|status| status & libc::TP_STATUS_CSUMNOTREADY == 0),
    })
}

/// `tp_status` of the PACKET_AUXDATA control message.
fn aux_status(message: &libc::msghdr) -> Option<u32> {
    // SAFETY: message was filled in by recvmsg, and its control buffer is alive and aligned.
    let first = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: first is null or points to a whole header inside the control buffer, which is not
    // written any more.
    let header = unsafe { first.as_ref() }?;
    let wanted = size_of::<libc::cmsghdr>() + size_of::<u32>();
    if header.cmsg_level != libc::SOL_PACKET
        || header.cmsg_type != libc::PACKET_AUXDATA
        || (header.cmsg_len as usize) < wanted
    {
        return None;
    }
    // SAFETY: cmsg_len says that at least the first field of tpacket_auxdata, a u32, follows the
    // header.
    Some(unsafe { libc::CMSG_DATA(first).cast::<u32>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use netd_core::wire::bpf;

    #[test]
    fn only_frames_on_the_interface_and_for_this_host_reach_the_filter() {
        let program = on_link(7, &assemble(&[Give(42)]));
        let answer = |ifindex, kind| {
            bpf::run(&program, |at, _| match at {
                AD_IFINDEX => Some(ifindex),
                AD_PKTTYPE => Some(kind),
                _ => None,
            })
        };
        // linux/if_packet.h: PACKET_HOST, PACKET_BROADCAST, PACKET_MULTICAST, PACKET_OTHERHOST.
        for (ifindex, kind, want) in [(7, 0, 42), (7, 1, 42), (7, 2, 42), (7, PACKET_OTHERHOST, DROP), (8, 0, DROP)] {
            assert_eq!(answer(ifindex, kind), want, "{ifindex} {kind}");
        }
    }

    #[test]
    fn the_loopback_interface_is_found_and_a_missing_one_is_not() {
        assert!(interface("lo").unwrap().is_some_and(|i| i.index > 0 && i.mac == [0; 6] && i.up));
        assert_eq!(interface("no-such-if0").unwrap(), None);
    }
}
