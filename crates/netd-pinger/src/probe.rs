//! One question to one target, and whether it is answered.
//!
//! A shell. Each question has a socket of its own, bound to the device and to the lease's address: the kernel then looks for
//! a route through that device alone, and finds the uplink's own default route however far fw has demoted it. Called by
//! watch.rs, which bounds the time.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use netd::packet;
use tokio::net::{TcpSocket, UdpSocket};

use crate::dns;
use crate::icmp::{self, Echo};
use crate::target::Target;

/// Longer answers are cut: what counts is at their beginning.
const BUFFER: usize = 512;

/// What to ask, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) device: String,
    pub(crate) source: Ipv4Addr,
    pub(crate) target: Target,
    /// What an answer must bring back.
    pub(crate) echo: Echo,
}

/// Returns when it was answered. To be dropped when that takes too long.
pub(crate) async fn ask(question: Question) -> io::Result<()> {
    let Question { device, source, target, echo } = question;
    match target {
        Target::Icmp(ip) => by_icmp(&device, source, ip, &echo).await,
        Target::Tcp(to) => by_tcp(&device, source, to).await,
        Target::Dns(ip, name) => by_dns(&device, source, Target::dns_server(ip), &name, echo.id).await,
    }
}

async fn by_icmp(device: &str, source: Ipv4Addr, target: Ipv4Addr, echo: &Echo) -> io::Result<()> {
    let socket = UdpSocket::from_std(packet::icmp_from(device, source, &icmp::filter(echo.id))?)?;
    socket.send_to(&echo.request(), SocketAddrV4::new(target, 0)).await?;
    let mut buffer = [0; BUFFER];
    loop {
        let (len, _) = socket.recv_from(&mut buffer).await?;
        if buffer.get(..len).is_some_and(|datagram| echo.is_reply(datagram, target)) {
            return Ok(());
        }
    }
}

/// A refusal is no answer: it may come from a router that has lost what is behind it.
async fn by_tcp(device: &str, source: Ipv4Addr, target: SocketAddrV4) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.bind(SocketAddrV4::new(source, 0).into())?;
    socket.connect(target.into()).await.map(drop)
}

async fn by_dns(device: &str, source: Ipv4Addr, server: SocketAddrV4, name: &str, id: u16) -> io::Result<()> {
    let socket = UdpSocket::from_std(packet::udp_from(device, SocketAddrV4::new(source, 0))?)?;
    // Connected: only the server's own datagrams arrive.
    socket.connect(server).await?;
    socket.send(&dns::query(id, name)).await?;
    let mut buffer = [0; BUFFER];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if buffer.get(..len).is_some_and(|datagram| dns::answers(datagram, id, name)) {
            return Ok(());
        }
    }
}
