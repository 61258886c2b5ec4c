//! Classic BPF as the kernel runs it, as far as the programs use it; anything else is a failure. [net/core/filter.c]

use libc::{
    BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP,
    BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_LEN, BPF_LSH, BPF_MEM, BPF_MISC, BPF_MOD, BPF_OR, BPF_RET, BPF_RSH, BPF_ST,
    BPF_TAX, BPF_W, BPF_X, BPF_XOR,
};

use super::super::SockFilter;

/// A packet on its way out of a device.
pub(super) struct Packet<'a> {
    /// From the destination address on.
    pub(super) bytes: &'a [u8],
    /// EtherType that the kernel keeps with it.
    pub(super) protocol: u16,
    /// VLAN tag outside the bytes.
    pub(super) tci: Option<u16>,
}

/// What the program returns for a packet.
pub(super) fn run(program: &[SockFilter], packet: &Packet<'_>) -> u32 {
    let mut machine = Machine {
        packet,
        a: 0,
        x: 0,
        cells: [None; libc::BPF_MEMWORDS as usize],
    };
    let mut at = 0;
    loop {
        match machine.step(program[at]) {
            Next::Skip(count) => at += 1 + count,
            Next::Ended(result) => return result,
        }
    }
}

enum Next {
    Skip(usize),
    Ended(u32),
}

struct Machine<'a> {
    packet: &'a Packet<'a>,
    a: u32,
    x: u32,
    /// None until written.
    cells: [Option<u32>; libc::BPF_MEMWORDS as usize],
}

impl Machine<'_> {
    fn step(&mut self, SockFilter { code, jt, jf, k }: SockFilter) -> Next {
        const CLASS: u32 = 0x07;
        const LOAD_ABS: u32 = BPF_LD | BPF_ABS;
        const LOAD_IND: u32 = BPF_LD | BPF_IND;
        let code = u32::from(code);
        match code & CLASS {
            BPF_JMP => return Next::Skip(self.jump(code, jt, jf, k)),
            BPF_ALU => self.calculate(code, k),
            _ => match code & !SIZE {
                LOAD_ABS if k >= ANCILLARY => self.a = self.ancillary(k - ANCILLARY),
                LOAD_ABS | LOAD_IND => {
                    let from = if code & !SIZE == LOAD_IND { self.x + k } else { k };
                    match self.read(code & SIZE, from) {
                        Some(number) => self.a = number,
                        None => return Next::Ended(0),
                    }
                }
                _ => match code {
                    LENGTH => self.a = self.packet.bytes.len() as u32,
                    NUMBER => self.a = k,
                    RECALL => self.a = self.cell(k),
                    RECALL_X => self.x = self.cell(k),
                    BPF_ST => self.cells[k as usize] = Some(self.a),
                    TO_X => self.x = self.a,
                    FINISH => return Next::Ended(self.a),
                    other => panic!("code {other:#06x}"),
                },
            },
        }
        Next::Skip(0)
    }

    fn jump(&self, code: u32, jt: u8, jf: u8, k: u32) -> usize {
        let than = if code & BPF_X != 0 { self.x } else { k };
        let holds = match code & OPERATION {
            BPF_JA => return k as usize,
            BPF_JEQ => self.a == than,
            BPF_JGE => self.a >= than,
            BPF_JSET => self.a & than != 0,
            other => panic!("test {other:#x}"),
        };
        usize::from(if holds { jt } else { jf })
    }

    fn calculate(&mut self, code: u32, k: u32) {
        let with = if code & BPF_X != 0 { self.x } else { k };
        self.a = match code & OPERATION {
            BPF_ADD => self.a.wrapping_add(with),
            BPF_AND => self.a & with,
            BPF_OR => self.a | with,
            BPF_XOR => self.a ^ with,
            BPF_LSH => self.a << with,
            BPF_RSH => self.a >> with,
            BPF_MOD => self.a % with,
            other => panic!("operation {other:#x}"),
        };
    }

    fn ancillary(&self, what: u32) -> u32 {
        match what as i32 {
            libc::SKF_AD_PROTOCOL => self.packet.protocol.into(),
            // Without a tag the field may hold that of an earlier life of the packet.
            libc::SKF_AD_VLAN_TAG => self.packet.tci.unwrap_or(0xdead).into(),
            libc::SKF_AD_VLAN_TAG_PRESENT => self.packet.tci.is_some().into(),
            other => panic!("SKF_AD_OFF + {other}"),
        }
    }

    fn read(&self, size: u32, at: u32) -> Option<u32> {
        let count = match size {
            BPF_B => 1,
            BPF_H => 2,
            _ => 4,
        };
        let bytes = self.packet.bytes.get(at as usize..)?.get(..count)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn cell(&self, number: u32) -> u32 {
        self.cells[number as usize].expect("a cell is written before it is read")
    }
}

const SIZE: u32 = BPF_W | BPF_H | BPF_B;
const OPERATION: u32 = 0xf0;
const LENGTH: u32 = BPF_LD | BPF_LEN;
const NUMBER: u32 = BPF_LD | BPF_IMM | BPF_K;
const RECALL: u32 = BPF_LD | BPF_MEM;
const RECALL_X: u32 = BPF_LDX | BPF_MEM;
const TO_X: u32 = BPF_MISC | BPF_TAX;
const FINISH: u32 = BPF_RET | BPF_A;
const ANCILLARY: u32 = libc::SKF_AD_OFF as u32;
