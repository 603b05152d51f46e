#include "textflag.h"

// See entry.go.
TEXT early_entry(SB),NOSPLIT|NOFRAME,$0
	MOVQ $39, AX // getpid
	SYSCALL
	CMPQ AX, $1
	JNE  start
	MOVQ $1, DI // SIGHUP
	CALL early_handle<>(SB)
	MOVQ $2, DI // SIGINT
	CALL early_handle<>(SB)
	MOVQ $3, DI // SIGQUIT
	CALL early_handle<>(SB)
	MOVQ $15, DI // SIGTERM
	CALL early_handle<>(SB)
start:
	JMP _rt0_amd64_linux(SB)

// early_handle installs the handler for the signal in DI.
TEXT early_handle<>(SB),NOSPLIT|NOFRAME,$0
	MOVQ $early_action<>(SB), SI
	XORQ DX, DX
	MOVQ $8, R10 // bytes of a signal set
	MOVQ $13, AX // rt_sigaction
	SYSCALL
	RET

// early_exit is the handler: it ends the process with 128 + the signal in DI.
TEXT early_exit(SB),NOSPLIT|NOFRAME,$0
	ADDQ $128, DI
	MOVQ $231, AX // exit_group
	SYSCALL
	INT $3 // not reached

// struct kernel_sigaction: handler, flags, restorer, mask. The kernel insists on
// SA_RESTORER, although early_exit never returns.
DATA early_action<>+0(SB)/8, $early_exit(SB)
DATA early_action<>+8(SB)/8, $0x04000000
DATA early_action<>+16(SB)/8, $early_exit(SB)
DATA early_action<>+24(SB)/8, $0
GLOBL early_action<>(SB), RODATA, $32
