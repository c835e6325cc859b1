/* Entry by PVH (Xen's boot ABI, docs/misc/pvh.pandoc): 32-bit protected mode, flat segments, paging and
 * interrupts off, %ebx = physical address of struct hvm_start_info. */

#define XEN_ELFNOTE_PHYS32_ENTRY 18

    .section .note.Xen, "a", @note
    .align 4
    .long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY    /* length of the name, of the value, type */
    .asciz "Xen"
    .long start

    .text
    .globl start
start:
    cld
    mov $stack_top, %esp
    xor %ebp, %ebp
    push %ebx
    call kernel_main
1:  hlt
    jmp 1b

    .globl serial_interrupt                 /* wakes the processor from hlt; the reader polls the port itself */
serial_interrupt:
    push %eax
    mov $0x20, %al
    out %al, $0x20                          /* end of interrupt */
    pop %eax
    iret

    .bss
    .align 16
    .skip 8192
stack_top:

    .section .note.GNU-stack, "", @progbits
