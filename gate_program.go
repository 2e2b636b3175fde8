// Which frames pass the gate of a link? The program that the kernel runs for each of them, in both directions, as
// instructions: what comes from or goes to a gated address passes only before the deadline of that address, and so does
// what ARP or neighbour discovery asks and says about it. Every other frame is left to the next filter. Where the
// program hangs is in gate.go.

package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// gateTags is how many VLAN tags the program looks behind where a frame has them among its bytes. The kernel takes off
// the outer one by itself, and a link on top of a VLAN sees none.
const gateTags = 3

// The program's verdicts, as tc has them.
const (
	gatePass = -1 // TC_ACT_UNSPEC: the next filter decides
	gateDrop = 2  // TC_ACT_SHOT
)

// gateName is what the kernel calls map and program.
const gateName = "hactl_gate"

// gateMapSpec is the map of one link: address → the instant of CLOCK_BOOTTIME from which it is silent.
func gateMapSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: gateName, Type: ebpf.Hash, KeySize: 16, ValueSize: 8, MaxEntries: 1024}
}

// gateKey is an address in the map, an IPv4 one as IPv6 maps it.
func gateKey(ip netip.Addr) [16]byte { return ip.As16() }

func gateProgramSpec(deadlines *ebpf.Map) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{Name: gateName, Type: ebpf.SchedCLS, Instructions: gateInstructions(deadlines.FD())}
}

// What the program keeps over calls of the kernel, and its stack.
const (
	gateFrame  = asm.R6
	gateOffset = asm.R7 // of the network header
	gateType   = asm.R8 // ethertype, as it lies in memory
	gateKeyAt  = -16    // an address to look up
	gateAt     = -24    // a field of a header
)

// gateCode writes the program down.
type gateCode struct {
	asm.Instructions
	deadlines int // file descriptor of the map
	labels    int
}

func gateInstructions(deadlines int) asm.Instructions {
	g := &gateCode{deadlines: deadlines}
	g.add(asm.Mov.Reg(gateFrame, asm.R1), asm.Mov.Imm(gateOffset, etherLen))
	g.load(gateAt, -2, 2) // the ethertype stands before the network header
	for range gateTags {
		tag := g.label("tag")
		g.add(
			asm.LoadMem(gateType, asm.RFP, gateAt, asm.Half),
			asm.JEq.Imm(gateType, inMemory(unix.ETH_P_8021Q), tag),
			asm.JNE.Imm(gateType, inMemory(unix.ETH_P_8021AD), "network"),
			asm.Add.Imm(gateOffset, 4).WithSymbol(tag),
		)
		g.load(gateAt, -2, 2)
	}
	g.add(
		asm.LoadMem(gateType, asm.RFP, gateAt, asm.Half),
		asm.JEq.Imm(gateType, inMemory(unix.ETH_P_IPV6), "ipv6").WithSymbol("network"),
		// IPv4 addresses are looked up as IPv6 maps them.
		asm.StoreImm(asm.RFP, gateKeyAt, 0, asm.Word),
		asm.StoreImm(asm.RFP, gateKeyAt+4, 0, asm.Word),
		asm.StoreImm(asm.RFP, gateKeyAt+8, 0, asm.Half),
		asm.StoreImm(asm.RFP, gateKeyAt+10, 0xffff, asm.Half),
		asm.JEq.Imm(gateType, inMemory(unix.ETH_P_IP), "ipv4"),
		asm.JNE.Imm(gateType, inMemory(unix.ETH_P_ARP), "pass"),
	)
	g.arp()
	g.ipv4()
	g.ipv6()
	g.add(
		asm.Mov.Imm(asm.R0, gatePass).WithSymbol("pass"), asm.Return(),
		asm.Mov.Imm(asm.R0, gateDrop).WithSymbol("drop"), asm.Return(),
	)
	return g.Instructions
}

// arp: who asks and who is asked for. Only what the kernel takes for ARP of IPv4 over Ethernet has these fields.
func (g *gateCode) arp() {
	g.load(gateAt, 2, 4) // protocol, and the lengths of both kinds of address
	g.add(
		asm.LoadMem(asm.R1, asm.RFP, gateAt, asm.Word),
		asm.Mov.Imm32(asm.R2, inMemory32(arpIPv4<<16|6<<8|4)),
		asm.JNE.Reg(asm.R1, asm.R2, "pass"),
	)
	g.check(14, 4)
	g.check(24, 4)
	g.add(asm.Ja.Label("pass"))
}

func (g *gateCode) ipv4() {
	g.enter("ipv4")
	g.check(12, 4)
	g.check(16, 4)
	g.add(asm.Ja.Label("pass"))
}

// ipv6: solicitations and advertisements name a target besides. Behind an extension header it is not looked for: such an
// advertisement this host never sends, and what answers such a solicitation has the target in the usual place.
func (g *gateCode) ipv6() {
	g.enter("ipv6")
	g.check(8, 16)
	g.check(24, 16)
	g.load(gateAt, 6, 1)
	g.add(asm.LoadMem(asm.R1, asm.RFP, gateAt, asm.Byte), asm.JNE.Imm(asm.R1, ipProtoICMPv6, "pass"))
	g.load(gateAt, ipv6Len, 1)
	g.add(
		asm.LoadMem(asm.R1, asm.RFP, gateAt, asm.Byte),
		asm.JEq.Imm(asm.R1, ndSolicitation, "target"),
		asm.JNE.Imm(asm.R1, ndAdvertisement, "pass"),
	)
	g.enter("target")
	g.check(ipv6Len+offsetNDTarget-offsetND, 16)
	g.add(asm.Ja.Label("pass"))
}

func (g *gateCode) add(ins ...asm.Instruction) { g.Instructions = append(g.Instructions, ins...) }

func (g *gateCode) label(kind string) string {
	g.labels++
	return fmt.Sprintf("%s%d", kind, g.labels)
}

// enter is where jumps to a label arrive.
func (g *gateCode) enter(label string) { g.add(asm.Mov.Reg(asm.R1, gateFrame).WithSymbol(label)) }

// load copies bytes of the frame, counted from its network header, to the stack. A frame that ends before them passes:
// it has no address there.
func (g *gateCode) load(to int32, offset, size int32) {
	g.add(
		asm.Mov.Reg(asm.R1, gateFrame),
		asm.Mov.Reg(asm.R2, gateOffset), asm.Add.Imm(asm.R2, offset),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, to),
		asm.Mov.Imm(asm.R4, size),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
	)
}

// check drops the frame if the address there is gated and its deadline has come.
func (g *gateCode) check(offset, size int32) {
	next := g.label("next")
	g.load(gateKeyAt+16-size, offset, size)
	g.add(
		asm.LoadMapPtr(asm.R1, g.deadlines),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, gateKeyAt),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, next),
		asm.LoadMem(asm.R9, asm.R0, 0, asm.DWord),
		asm.FnKtimeGetBootNs.Call(),
		asm.JGE.Reg(asm.R0, asm.R9, "drop"),
	)
	g.enter(next)
}

// inMemory is a field in network order as a load of this machine reads it.
func inMemory(v uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)))
}

func inMemory32(v uint32) int32 {
	return int32(binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, v)))
}
