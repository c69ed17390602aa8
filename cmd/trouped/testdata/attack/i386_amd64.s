#include "textflag.h"

// func int80(nr, a, b, c, d uintptr) int32
TEXT ·int80(SB), NOSPLIT, $0-44
	MOVQ nr+0(FP), AX
	MOVQ a+8(FP), BX
	MOVQ b+16(FP), CX
	MOVQ c+24(FP), DX
	MOVQ d+32(FP), SI
	INT  $0x80
	MOVL AX, ret+40(FP)
	RET
