//! Classic BPF: its instructions, and labels for jumps. [linux/filter.h, Documentation/networking/filter.rst]
//!
//! A program has an accumulator A, an index register X and 16 cells of memory, and jumps only forward. A load from behind the
//! end of the frame ends it with 0.

use libc::{
    BPF_A, BPF_ABS, BPF_ALU, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX,
    BPF_LEN, BPF_MEM, BPF_MISC, BPF_RET, BPF_ST, BPF_TAX, BPF_W, BPF_X,
};

/// One instruction. [linux/filter.h: struct sock_filter]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockFilter {
    /// What to do.
    pub code: u16,
    /// Instructions to skip if a test holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand: a number, an offset or a cell.
    pub k: u32,
}

impl SockFilter {
    /// As the kernel takes it, in the byte order of the host.
    pub fn bytes(self) -> [u8; 8] {
        let ([c0, c1], [k0, k1, k2, k3]) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        [c0, c1, self.jt, self.jf, k0, k1, k2, k3]
    }

    /// As the kernel gives it back.
    pub fn from_bytes([c0, c1, jt, jf, k0, k1, k2, k3]: [u8; 8]) -> Self {
        SockFilter {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        }
    }
}

/// A place to jump to, further on.
#[derive(Clone, Copy)]
pub(super) struct Label(usize);

/// A cell of memory, by number. The kernel refuses a program that may read one before it was written.
#[derive(Clone, Copy)]
pub(super) struct Cell(pub(super) u8);

/// A program in the making; each method but the ones about labels adds one instruction.
#[derive(Default)]
pub(super) struct Assembler {
    lines: Vec<Line>,
    /// Of each label, the instruction it stands before.
    places: Vec<Option<usize>>,
}

struct Line {
    code: u32,
    k: u32,
    jump: Jump,
}

enum Jump {
    No,
    Always(Label),
    If(Label),
    Unless(Label),
}

impl Assembler {
    /// A new label, to be placed once.
    pub(super) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// Puts a label before the next instruction.
    pub(super) fn place(&mut self, label: Label) {
        self.places[label.0] = Some(self.lines.len());
    }

    /// A = the frame's bytes at an offset, a number in network order; `size` is BPF_B, BPF_H or BPF_W.
    pub(super) fn load(&mut self, size: u32, offset: u32) {
        self.add(BPF_LD | size | BPF_ABS, offset);
    }

    /// The same at X + `offset`.
    pub(super) fn load_behind(&mut self, size: u32, offset: u32) {
        self.add(BPF_LD | size | BPF_IND, offset);
    }

    /// A = something that the kernel keeps about the frame; `what` is one of SKF_AD_.
    pub(super) fn about(&mut self, what: i32) {
        self.load(BPF_W, (libc::SKF_AD_OFF + what) as u32);
    }

    /// A = length of the frame in bytes.
    pub(super) fn length(&mut self) {
        self.add(BPF_LD | BPF_W | BPF_LEN, 0);
    }

    /// A = `number`.
    pub(super) fn number(&mut self, number: u32) {
        self.add(BPF_LD | BPF_IMM, number);
    }

    /// Cell = A.
    pub(super) fn store(&mut self, cell: Cell) {
        self.add(BPF_ST, cell.0.into());
    }

    /// A = cell.
    pub(super) fn recall(&mut self, cell: Cell) {
        self.add(BPF_LD | BPF_W | BPF_MEM, cell.0.into());
    }

    /// X = cell.
    pub(super) fn recall_x(&mut self, cell: Cell) {
        self.add(BPF_LDX | BPF_W | BPF_MEM, cell.0.into());
    }

    /// X = A.
    pub(super) fn copy_to_x(&mut self) {
        self.add(BPF_MISC | BPF_TAX, 0);
    }

    /// A = A `operation` `number`, such as BPF_AND.
    pub(super) fn alu(&mut self, operation: u32, number: u32) {
        self.add(BPF_ALU | operation | BPF_K, number);
    }

    /// A = A `operation` X.
    pub(super) fn alu_x(&mut self, operation: u32) {
        self.add(BPF_ALU | operation | BPF_X, 0);
    }

    /// Goes on at `to`.
    pub(super) fn jump(&mut self, to: Label) {
        self.add_jump(BPF_JA, 0, Jump::Always(to));
    }

    /// Goes on at `to` if A is `number`.
    pub(super) fn jump_if(&mut self, number: u8, to: Label) {
        self.add_jump(BPF_JEQ | BPF_K, number.into(), Jump::If(to));
    }

    /// Goes on at `to` if A is not `number`.
    pub(super) fn jump_unless(&mut self, number: u16, to: Label) {
        self.add_jump(BPF_JEQ | BPF_K, number.into(), Jump::Unless(to));
    }

    /// Goes on at `to` if A has any of `bits`.
    pub(super) fn jump_if_any(&mut self, bits: u16, to: Label) {
        self.add_jump(BPF_JSET | BPF_K, bits.into(), Jump::If(to));
    }

    /// Goes on at `to` if A is less than X.
    pub(super) fn jump_if_less(&mut self, to: Label) {
        self.add_jump(BPF_JGE | BPF_X, 0, Jump::Unless(to));
    }

    /// Ends the program with A.
    pub(super) fn finish(&mut self) {
        self.add(BPF_RET | BPF_A, 0);
    }

    /// The program, which must reach no further than 255 instructions with a test.
    pub(super) fn assemble(self) -> Vec<SockFilter> {
        let lines = self.lines.iter().enumerate();
        lines.map(|(at, line)| self.instruction(at, line)).collect()
    }

    fn instruction(&self, at: usize, line: &Line) -> SockFilter {
        let skip = |to: Label| {
            let place = self.places[to.0].expect("every label that is used is placed");
            place.checked_sub(at + 1).expect("labels are placed after their jumps")
        };
        let near = |to| u8::try_from(skip(to)).expect("a test is at most 255 instructions before its label");
        let (jt, jf, k) = match line.jump {
            Jump::No => (0, 0, line.k),
            Jump::Always(to) => (0, 0, skip(to) as u32),
            Jump::If(to) => (near(to), 0, line.k),
            Jump::Unless(to) => (0, near(to), line.k),
        };
        SockFilter {
            code: line.code as u16,
            jt,
            jf,
            k,
        }
    }

    fn add(&mut self, code: u32, k: u32) {
        let jump = Jump::No;
        self.lines.push(Line { code, k, jump });
    }

    fn add_jump(&mut self, test: u32, k: u32, jump: Jump) {
        let code = BPF_JMP | test;
        self.lines.push(Line { code, k, jump });
    }
}
