//! One question to one target, and whether it is answered.
//!
//! A shell. Each question has a socket of its own, bound to the device and to the lease's address:
//! the kernel then looks for a route through that device alone, and finds the uplink's own default
//! route however far fw has demoted it. Called by watch.rs, which bounds the time.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use netd::clock;
use netd::packet;
use netd_core::pace::Pace;
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

impl Question {
    /// Whether a datagram answers it.
    fn is_answered_by(&self, datagram: &[u8]) -> bool {
        match &self.target {
            Target::Icmp(ip) => self.echo.is_reply(datagram, *ip),
            Target::Dns(_, name) => dns::answers(datagram, self.echo.id, name),
            Target::Tcp(_) => false,
        }
    }
}

/// Returns when it was answered. To be dropped when that takes too long.
pub(crate) async fn ask(question: Question) -> io::Result<()> {
    let Question { device, source, target, echo } = &question;
    let (socket, to, message) = match target {
        Target::Icmp(ip) => {
            let socket = packet::icmp_from(device, *source, &icmp::filter(echo.id))?;
            (socket, SocketAddrV4::new(*ip, 0), echo.request().to_vec())
        }
        Target::Dns(ip, name) => {
            let socket = packet::udp_from(device, SocketAddrV4::new(*source, 0))?;
            (socket, Target::dns_server(*ip), dns::query(echo.id, name))
        }
        Target::Tcp(to) => return connect(device, *source, *to).await,
    };
    // Connected: only the target's own datagrams arrive.
    socket.connect(to)?;
    socket.send(&message)?;
    let socket = UdpSocket::from_std(socket)?;
    let (mut buffer, mut pace) = ([0; BUFFER], Pace::default());
    loop {
        let len = socket.recv(&mut buffer).await?;
        if buffer.get(..len).is_some_and(|datagram| question.is_answered_by(datagram)) {
            return Ok(());
        }
        pace.count(clock::now());
        if let Some(rest) = pace.rest(clock::now()) {
            clock::sleep(rest).await;
        }
    }
}

/// A refusal is no answer: it may come from a router that has lost what is behind it.
async fn connect(device: &str, source: Ipv4Addr, target: SocketAddrV4) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.bind(SocketAddrV4::new(source, 0).into())?;
    socket.connect(target.into()).await.map(drop)
}
