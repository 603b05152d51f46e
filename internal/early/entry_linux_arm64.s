#include "textflag.h"

// See entry.go.
TEXT early_entry(SB),NOSPLIT|NOFRAME,$0
	MOVD $172, R8 // getpid
	SVC
	CMP  $1, R0
	BNE  start
	MOVD $1, R0 // SIGHUP
	BL   early_handle<>(SB)
	MOVD $2, R0 // SIGINT
	BL   early_handle<>(SB)
	MOVD $3, R0 // SIGQUIT
	BL   early_handle<>(SB)
	MOVD $15, R0 // SIGTERM
	BL   early_handle<>(SB)
start:
	B _rt0_arm64_linux(SB)

// early_handle installs the handler for the signal in R0.
TEXT early_handle<>(SB),NOSPLIT|NOFRAME,$0
	MOVD $early_action<>(SB), R1
	MOVD ZR, R2
	MOVD $8, R3 // bytes of a signal set
	MOVD $134, R8 // rt_sigaction
	SVC
	RET

// early_exit is the handler: it ends the process with 128 + the signal in R0.
TEXT early_exit(SB),NOSPLIT|NOFRAME,$0
	ADD  $128, R0, R0
	MOVD $94, R8 // exit_group
	SVC
	BRK // not reached

// struct kernel_sigaction: handler, flags, restorer, mask.
DATA early_action<>+0(SB)/8, $early_exit(SB)
GLOBL early_action<>(SB), RODATA, $32
