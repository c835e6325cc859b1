"""A tiny guest of ours that measures a processor: it enters 64-bit mode, adds in a loop, and ends the machine.

It exists because /dev/kvm can be there, run a trivial guest, and still be useless: on some nested hosts every instruction is emulated, so
that a loop which takes 70 ms without KVM does not end in a minute with it.

The file is a 32-bit ELF executable with a PVH note (Xen's boot ABI, docs/misc/pvh.pandoc, note type 18), which QEMU boots by
``-kernel``: it starts in 32-bit protected mode with flat segments and paging off. The bytes below are the whole program; encodings are
those of the Intel 64 manual, volume 2.
"""

from __future__ import annotations

import struct

from unikeel.lean import Final

#: Rounds of the loop: some 70 ms by emulation in software, under 10 ms on a processor.
ROUNDS: Final = 20_000_000
#: What the guest writes to isa-debug-exit, and the exit status that QEMU makes of it.
VALUE: Final = 21
EXIT_STATUS: Final = 2 * VALUE + 1
#: The port of isa-debug-exit.
PORT: Final = 0x501

#: Where it is loaded: all x86 machines have memory at 1 MiB. Three pages for page tables follow the one with the program.
_LOAD: Final = 0x100000
_PML4: Final = _LOAD + 0x1000
_PDPT: Final = _LOAD + 0x2000
_PD: Final = _LOAD + 0x3000
_MEMORY: Final = 0x4000

_ELF_HEADER: Final = 52
_PROGRAM_HEADER: Final = 32
_NOTE_AT: Final = _ELF_HEADER + 2 * _PROGRAM_HEADER
_NOTE_SIZE: Final = 20
_ENTRY: Final = _LOAD + _NOTE_AT + _NOTE_SIZE

_CODE_SELECTOR: Final = 8
#: Null, then 64-bit code: present, executable, readable, long.
_GDT: Final = struct.pack("<QQ", 0, 0x00AF9A000000FFFF)


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)


def _store(address: int, value: int) -> bytes:
    """``mov dword [address], value``."""
    return b"\xc7\x05" + _u32(address) + _u32(value)


#: 32-bit: map the first 2 MiB one to one, turn on PAE (CR4.5), long mode (EFER.8) and paging (CR0.31).
_ENTER_LONG_MODE: Final = b"".join(
    (
        _store(_PML4, _PDPT | 3),  # present, writable
        _store(_PDPT, _PD | 3),
        _store(_PD, 0x83),  # a 2 MiB page at 0
        b"\xb8" + _u32(_PML4),  # mov eax, PML4
        b"\x0f\x22\xd8",  # mov cr3, eax
        b"\xb8" + _u32(0x20),  # mov eax, PAE
        b"\x0f\x22\xe0",  # mov cr4, eax
        b"\xb9" + _u32(0xC0000080),  # mov ecx, EFER
        b"\x0f\x32",  # rdmsr
        b"\x0d" + _u32(0x100),  # or eax, LME
        b"\x0f\x30",  # wrmsr
        b"\x0f\x20\xc0",  # mov eax, cr0
        b"\x0d" + _u32(0x80000000),  # or eax, PG
        b"\x0f\x22\xc0",  # mov cr0, eax
    )
)
_LGDT_AND_JUMP: Final = 14


def _loop(rounds: int) -> bytes:
    """64-bit: add ``rounds`` numbers, write the value to the port, halt."""
    return b"".join(
        (
            b"\xb9" + _u32(rounds),  # mov ecx, rounds
            b"\x48\x01\xc8",  # 1: add rax, rcx
            b"\xff\xc9",  # dec ecx
            b"\x75\xf9",  # jnz 1b
            b"\x66\xba" + struct.pack("<H", PORT),  # mov dx, PORT
            b"\xb0" + bytes((VALUE,)),  # mov al, VALUE
            b"\xee",  # out dx, al
            b"\xf4",  # 2: hlt
            b"\xeb\xfd",  # jmp 2b
        )
    )


def image(rounds: int = ROUNDS) -> bytes:
    """The guest as an ELF file of a few hundred bytes. ``rounds``: 1 to 2**32 - 1."""
    long_mode = _ENTRY + len(_ENTER_LONG_MODE) + _LGDT_AND_JUMP
    loop = _loop(rounds)
    gdt = long_mode + len(loop)
    code = b"".join(
        (
            _ENTER_LONG_MODE,
            b"\x0f\x01\x15" + _u32(gdt + len(_GDT)),  # lgdt [the six bytes behind the table]
            b"\xea" + struct.pack("<IH", long_mode, _CODE_SELECTOR),  # jmp CODE_SELECTOR:long_mode
            loop,
            _GDT,
            struct.pack("<HI", len(_GDT) - 1, gdt),
        )
    )
    note = struct.pack("<III", 4, 4, 18) + b"Xen\0" + _u32(_ENTRY)
    return _headers(len(code)) + note + code


def _headers(code_size: int) -> bytes:
    """The ELF header (executable, i386) and two program headers: all of it loaded at 1 MiB, and the note."""
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    header = ident + struct.pack(
        "<HHIIIIIHHHHHH", 2, 3, 1, _ENTRY, _ELF_HEADER, 0, 0, _ELF_HEADER, _PROGRAM_HEADER, 2, 40, 0, 0
    )
    size = _NOTE_AT + _NOTE_SIZE + code_size
    load = struct.pack("<8I", 1, 0, _LOAD, _LOAD, size, _MEMORY, 7, 0x1000)
    note = struct.pack("<8I", 4, _NOTE_AT, _LOAD + _NOTE_AT, _LOAD + _NOTE_AT, _NOTE_SIZE, _NOTE_SIZE, 4, 4)
    return header + load + note
