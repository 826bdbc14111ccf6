//! Classic BPF: the assembler of our socket filters and seccomp(2) programs, and an interpreter for
//! their tests.
//!
//! A program is a list of [`Op`]s. Each op becomes one instruction, a [`Op::Label`] none. Jumps go
//! forward to the next label of their name, so a program has no loop. Called by arp.rs, by netd's
//! packet.rs and cage/filter.rs, by udhcpc and by the pinger. Sources: bpf(2), linux/bpf_common.h,
//! linux/filter.h.

// linux/bpf_common.h: classes ...
const LD: u16 = 0x00;
const LDX: u16 = 0x01;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const RET: u16 = 0x06;
// ... widths ...
const W: u16 = 0x00;
const H: u16 = 0x08;
const B: u16 = 0x10;
// ... where a load takes its bytes: at k, at X + k, or as the length of an IPv4 header ...
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const MSH: u16 = 0xa0;
// ... and operations.
const AND: u16 = 0x50;
const JEQ: u16 = 0x10;
const JSET: u16 = 0x40;

/// The answer of a socket filter that lets the whole packet through: the longest length there is.
pub const PASS: u32 = u32::MAX;
/// The answer of a socket filter that drops the packet: no byte of it.
pub const DROP: u32 = 0;

/// linux/filter.h, SKF_AD_OFF: loads from here on read facts about the packet in place of its
/// bytes.
const AD: u32 = 0xffff_f000;
/// SKF_AD_PKTTYPE: whom the packet is for.
pub const AD_PKTTYPE: u32 = AD + 4;
/// SKF_AD_IFINDEX: the interface that the packet is on now.
pub const AD_IFINDEX: u32 = AD + 8;

/// One instruction: `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when true.
    pub jt: u8,
    /// Instructions to skip when false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A line of a program. A is the accumulator, X the index register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A = the 4 bytes at this offset.
    Word(u32),
    /// A = the 2 bytes at this offset.
    Half(u32),
    /// A = the byte at this offset.
    Byte(u32),
    /// X = the length of the IPv4 header at this offset.
    HeaderLen(u32),
    /// A = the 4 bytes at X and this offset.
    WordAtX(u32),
    /// A = the 2 bytes at X and this offset.
    HalfAtX(u32),
    /// A = the byte at X and this offset.
    ByteAtX(u32),
    /// A keeps these bits alone.
    And(u32),
    /// Goes to the label when A passes the test.
    If(Test, &'static str),
    /// Goes to the label when A fails the test.
    Unless(Test, &'static str),
    /// Ends the program with this answer.
    Give(u32),
    /// Where jumps of this name that stand before it go.
    Label(&'static str),
}

/// What a jump looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// A is this number.
    Equal(u32),
    /// A has one of these bits, or more of them.
    AnyBit(u32),
}

/// The program as the kernel takes it. A jump without a label, or more than 255 instructions away
/// from it, is a mistake of ours: such a jump becomes "drop" (seccomp's "kill"), so that a wrong
/// program refuses and never permits.
pub fn assemble(ops: &[Op]) -> Vec<Instruction> {
    let mut program = Vec::with_capacity(ops.len());
    for (at, op) in ops.iter().enumerate() {
        let rest = ops.get(at + 1..).unwrap_or_default();
        let plain = |code, k| Instruction { code, jt: 0, jf: 0, k };
        program.push(match *op {
            Op::Word(k) => plain(LD | W | ABS, k),
            Op::Half(k) => plain(LD | H | ABS, k),
            Op::Byte(k) => plain(LD | B | ABS, k),
            Op::HeaderLen(k) => plain(LDX | B | MSH, k),
            Op::WordAtX(k) => plain(LD | W | IND, k),
            Op::HalfAtX(k) => plain(LD | H | IND, k),
            Op::ByteAtX(k) => plain(LD | B | IND, k),
            Op::And(k) => plain(ALU | AND, k),
            Op::If(test, label) => jump(test, distance(rest, label), Some(0)),
            Op::Unless(test, label) => jump(test, Some(0), distance(rest, label)),
            Op::Give(k) => plain(RET, k),
            Op::Label(_) => continue,
        });
    }
    program
}

fn jump(test: Test, yes: Option<u8>, no: Option<u8>) -> Instruction {
    let (code, k) = match test {
        Test::Equal(k) => (JMP | JEQ, k),
        Test::AnyBit(k) => (JMP | JSET, k),
    };
    match (yes, no) {
        (Some(jt), Some(jf)) => Instruction { code, jt, jf, k },
        _ => Instruction { code: RET, jt: 0, jf: 0, k: DROP },
    }
}

/// Instructions between a jump and the next label of this name; `rest` follows the jump.
fn distance(rest: &[Op], label: &str) -> Option<u8> {
    let place = rest.iter().position(|op| matches!(op, Op::Label(name) if *name == label))?;
    let between = rest.iter().take(place).filter(|op| !matches!(op, Op::Label(_)));
    u8::try_from(between.count()).ok()
}

/// What the kernel makes of a program: its answer. `load` reads `width` bytes at an offset; a load
/// outside of the data, and a program that is none, end with [`DROP`], as in the kernel.
#[cfg(any(test, feature = "sim"))]
pub fn run(program: &[Instruction], load: impl Fn(u32, usize) -> Option<u32>) -> u32 {
    step(program, load).unwrap_or(DROP)
}

#[cfg(any(test, feature = "sim"))]
fn step(program: &[Instruction], load: impl Fn(u32, usize) -> Option<u32>) -> Option<u32> {
    const NEXT: u16 = JMP | JEQ;
    const BITS: u16 = JMP | JSET;
    let (mut a, mut x, mut at) = (0_u32, 0_u32, 0_usize);
    // Jumps go forward alone, so the walk ends.
    loop {
        let Instruction { code, jt, jf, k } = *program.get(at)?;
        at += 1;
        let width = match code & (H | B) {
            W => 4,
            H => 2,
            _ => 1,
        };
        match code {
            _ if code == RET => return Some(k),
            _ if code == LDX | B | MSH => x = (load(k, 1)? & 0xf) * 4,
            _ if code == ALU | AND => a &= k,
            NEXT => at += usize::from(if a == k { jt } else { jf }),
            BITS => at += usize::from(if a & k != 0 { jt } else { jf }),
            _ if code & !(H | B) == LD | ABS => a = load(k, width)?,
            _ if code & !(H | B) == LD | IND => a = load(x.checked_add(k)?, width)?,
            _ => return None,
        }
    }
}

/// For [`run`]: the bytes of a frame, which the kernel reads in network byte order. It knows
/// nothing else about the frame.
#[cfg(any(test, feature = "sim"))]
pub fn frame(bytes: &[u8]) -> impl Fn(u32, usize) -> Option<u32> {
    |at, width| {
        let at = usize::try_from(at).ok()?;
        let bytes = bytes.get(at..at.checked_add(width)?)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::Op::*;
    use super::Test::*;
    use super::*;

    #[test]
    fn a_program_is_what_tcpdump_makes_of_the_same_words() {
        // `tcpdump -y RAW -ddd 'ip and udp dst port 68'`.
        let ours = assemble(&[
            Byte(0),
            And(0xf0),
            Unless(Equal(0x40), "drop"),
            Byte(9),
            Unless(Equal(0x11), "drop"),
            Half(6),
            If(AnyBit(0x1fff), "drop"),
            HeaderLen(0),
            HalfAtX(2),
            Unless(Equal(0x44), "drop"),
            Give(0x40000),
            Label("drop"),
            Give(DROP),
        ]);
        let theirs = [
            (48, 0, 0, 0),
            (84, 0, 0, 240),
            (21, 0, 8, 64),
            (48, 0, 0, 9),
            (21, 0, 6, 17),
            (40, 0, 0, 6),
            (69, 4, 0, 8191),
            (177, 0, 0, 0),
            (72, 0, 0, 2),
            (21, 0, 1, 68),
            (6, 0, 0, 262_144),
            (6, 0, 0, 0),
        ];
        assert_eq!(ours, theirs.map(|(code, jt, jf, k)| Instruction { code, jt, jf, k }));
    }

    #[test]
    fn a_jump_goes_to_the_next_label_of_its_name() {
        let program = assemble(&[
            Byte(0),
            Unless(Equal(1), "next"),
            Give(10),
            Label("next"),
            Unless(Equal(2), "next"),
            Give(20),
            Label("next"),
            Give(30),
        ]);
        for (byte, want) in [(1, 10), (2, 20), (3, 30)] {
            assert_eq!(run(&program, frame(&[byte])), want, "{byte}");
        }
    }

    #[test]
    fn a_jump_that_finds_no_label_refuses() {
        let lost = assemble(&[If(Equal(0), "nowhere"), Give(PASS)]);
        assert_eq!(run(&lost, frame(&[])), DROP);
        let backwards = assemble(&[Label("back"), If(Equal(0), "back"), Give(PASS)]);
        assert_eq!(run(&backwards, frame(&[])), DROP);
        for (between, want) in [(255, 7), (256, DROP)] {
            let middle = vec![And(0); between - 1];
            let far = [&[If(Equal(0), "far")], &middle[..], &[Give(PASS), Label("far"), Give(7)]].concat();
            assert_eq!(run(&assemble(&far), frame(&[])), want, "{between}");
        }
    }

    #[test]
    fn loads_are_of_their_width_and_inside_of_the_frame() {
        let bytes = [0x46, 2, 3, 4, 5];
        for (op, want) in [(Word(1), 0x0203_0405), (Half(1), 0x0203), (Byte(1), 2), (Word(2), DROP), (Half(4), DROP)] {
            let program = assemble(&[op, Unless(Equal(want), "drop"), Give(PASS), Label("drop"), Give(DROP)]);
            assert_eq!(run(&program, frame(&bytes)), if want == DROP { DROP } else { PASS }, "{op:?}");
        }
        let long = [&bytes[..], &[0; 19], &[9, 8, 7, 6]].concat();
        for (op, want) in [(WordAtX(0), 0x0908_0706), (HalfAtX(1), 0x0807), (ByteAtX(3), 6)] {
            let program = assemble(&[HeaderLen(0), op, Unless(Equal(want), "no"), Give(PASS), Label("no"), Give(DROP)]);
            assert_eq!(run(&program, frame(&long)), PASS, "{op:?}");
        }
    }
}
