#include "textflag.h"

// See entry.go.
TEXT early_entry(SB),NOSPLIT|NOFRAME,$0
	MOVW $20, R7 // getpid
	SWI  $0
	CMP  $1, R0
	BNE  start
	MOVW $1, R0 // SIGHUP
	BL   early_handle<>(SB)
	MOVW $2, R0 // SIGINT
	BL   early_handle<>(SB)
	MOVW $3, R0 // SIGQUIT
	BL   early_handle<>(SB)
	MOVW $15, R0 // SIGTERM
	BL   early_handle<>(SB)
start:
	B _rt0_arm_linux(SB)

// early_handle installs the handler for the signal in R0.
TEXT early_handle<>(SB),NOSPLIT|NOFRAME,$0
	MOVW $early_action<>(SB), R1
	MOVW $0, R2
	MOVW $8, R3 // bytes of a signal set
	MOVW $174, R7 // rt_sigaction
	SWI  $0
	RET

// early_exit is the handler: it ends the process with 128 + the signal in R0.
TEXT early_exit(SB),NOSPLIT|NOFRAME,$0
	ADD  $128, R0
	MOVW $248, R7 // exit_group
	SWI  $0
	WORD $0xe7f000f0 // an undefined instruction, not reached

// struct sigaction: handler, flags, restorer, mask.
DATA early_action<>+0(SB)/4, $early_exit(SB)
GLOBL early_action<>(SB), RODATA, $20
