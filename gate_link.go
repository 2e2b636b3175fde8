// How does the gate hang on a link? As a filter in both directions of clsact, before all others, with a name by which a
// later process knows it and finds its map. Qdisc and filters of others stay as they are.

package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The filters' names, as tc shows them. The second says that the qdisc is the gate's own too.
const (
	gateFilter      = "hactl-gate"
	gateFilterQdisc = "hactl-gate-and-qdisc"
)

// Where the filters hang: first in line, under a number that nobody else is likely to choose.
const (
	gatePreference = 1
	gateHandle     = 0x6861
)

// gateSides are the directions, the way out first: what is not heard is not answered either, but announcements leave
// unasked.
func gateSides() []uint32 { return []uint32{netlink.HANDLE_MIN_EGRESS, netlink.HANDLE_MIN_INGRESS} }

// hanging is what a link has of a gate.
type hanging struct {
	programs [2]int // ids, by side; 0: none
	qdisc    bool   // and the qdisc came with it
	others   bool   // the link has filters of others
}

// readGate looks at a link's filters.
func readGate(h *netlink.Handle, l netlink.Link) (x hanging, err error) {
	for i, side := range gateSides() {
		all, err := dump(func() ([]netlink.Filter, error) { return h.FilterList(l, side) })
		if err != nil {
			return x, fmt.Errorf("list filters: %w", err)
		}
		for _, f := range all {
			b, ok := f.(*netlink.BpfFilter)
			switch {
			case ok && (b.Name == gateFilter || b.Name == gateFilterQdisc):
				x.programs[i] = b.Id
				x.qdisc = x.qdisc || b.Name == gateFilterQdisc
			case ok && b.Handle == gateHandle && b.Priority == gatePreference:
				return x, fmt.Errorf("another filter has the gate's place: see tc filter show dev %s", l.Attrs().Name)
			default:
				x.others = true
			}
		}
	}
	return x, nil
}

// deadlinesOf finds the map of a program that hangs somewhere.
func deadlinesOf(program int) (*ebpf.Map, error) {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(program))
	if err != nil {
		return nil, err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, err
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, err
		}
		if spec := gateMapSpec(); m.Type() == spec.Type && m.KeySize() == spec.KeySize && m.ValueSize() == spec.ValueSize {
			return m, nil
		}
		m.Close()
	}
	return nil, errors.New("it has no map of deadlines")
}

// hang makes sure that the link has its gate: the one that this process has put there, or else one with the deadlines of
// the process before. With mu held.
func (s *gates) hang(link string) (g *gate, err error) {
	err = s.place.netlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(link)
		if err != nil {
			return err
		}
		if i := asInterface(l.Attrs()); !i.Ethernet {
			return errors.New("it is no Ethernet interface")
		}
		x, err := readGate(h, l)
		if err != nil {
			return err
		}
		if g = s.links[link]; g != nil && x.programs == [2]int{int(g.program), int(g.program)} {
			return nil
		}
		if g == nil {
			g = &gate{}
			if x.programs[0] != 0 {
				if g.deadlines, err = deadlinesOf(x.programs[0]); err != nil {
					s.log.Warn("a gate of a former run cannot be read: it is made anew", "event", "gate-failed", "interface", link, "err", err)
				}
			}
		}
		if g.deadlines == nil {
			if g.deadlines, err = ebpf.NewMap(gateMapSpec()); err != nil {
				return fmt.Errorf("make a BPF map: %w", err)
			}
		}
		if g.program, err = fasten(h, l, g.deadlines, x.qdisc); err != nil {
			if s.links[link] != g {
				g.deadlines.Close()
			}
			return err
		}
		s.links[link] = g
		return nil
	})
	return g, err
}

// fasten hangs the program on both sides; one of a former run is replaced in one step.
func fasten(h *netlink.Handle, l netlink.Link, deadlines *ebpf.Map, ownQdisc bool) (ebpf.ProgramID, error) {
	p, err := ebpf.NewProgram(gateProgramSpec(deadlines))
	if err != nil {
		return 0, fmt.Errorf("load the BPF program: %w", err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return 0, err
	}
	id, ok := info.ID()
	if !ok {
		return 0, errors.New("the kernel gives BPF programs no numbers: it is too old")
	}
	added := h.QdiscAdd(clsact(l))
	if added != nil && !errors.Is(added, unix.EEXIST) {
		return 0, fmt.Errorf("add qdisc clsact: %w", added)
	}
	if err := onlyClsact(h, l); err != nil {
		return 0, err
	}
	for _, side := range gateSides() {
		f := gateFilterOf(l, side)
		f.Fd = p.FD()
		if ownQdisc || added == nil {
			f.Name = gateFilterQdisc
		}
		if err := h.FilterReplace(f); err != nil {
			if added == nil {
				err = errors.Join(err, h.QdiscDel(clsact(l)))
			}
			return 0, fmt.Errorf("hang the filter first in line: %w: see tc filter show dev %s egress, and the same with ingress", err, l.Attrs().Name)
		}
	}
	return id, nil
}

// onlyClsact refuses the qdisc ingress, which has clsact's place and takes filters for the way out without ever asking
// them.
func onlyClsact(h *netlink.Handle, l netlink.Link) error {
	all, err := dump(func() ([]netlink.Qdisc, error) { return h.QdiscList(l) })
	if err != nil {
		return fmt.Errorf("list qdiscs: %w", err)
	}
	for _, q := range all {
		if q.Type() == "ingress" {
			return fmt.Errorf("the qdisc ingress leaves no place for it: see tc qdisc show dev %s; clsact does the same and more", l.Attrs().Name)
		}
	}
	return nil
}

func clsact(l netlink.Link) *netlink.GenericQdisc {
	return &netlink.GenericQdisc{QdiscType: "clsact",
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
}

func gateFilterOf(l netlink.Link, side uint32) *netlink.BpfFilter {
	return &netlink.BpfFilter{Name: gateFilter, DirectAction: true, Fd: -1, FilterAttrs: netlink.FilterAttrs{
		LinkIndex: l.Attrs().Index, Parent: side, Handle: gateHandle, Priority: gatePreference, Protocol: unix.ETH_P_ALL}}
}

// unhang takes the gate off a link, and its qdisc if that came with the gate and nobody else uses it.
func (s *gates) unhang(link string) error {
	return s.place.netlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(link)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil // the gate is gone with it
		}
		if err != nil {
			return err
		}
		x, err := readGate(h, l)
		if err != nil {
			return err
		}
		for i, side := range gateSides() {
			if x.programs[i] != 0 {
				if err := h.FilterDel(gateFilterOf(l, side)); err != nil && !errors.Is(err, unix.ENOENT) {
					return fmt.Errorf("delete the filter: %w", err)
				}
			}
		}
		if x.qdisc && !x.others {
			if err := h.QdiscDel(clsact(l)); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("delete qdisc clsact: %w", err)
			}
		}
		return nil
	})
}

// tidy takes addresses that are not on their link out of the gates that it finds: a process that died between gate and
// address has left them, and nobody would ever open them again.
func (s *gates) tidy() error {
	var errs []error
	err := s.place.netlink(func(h *netlink.Handle) error {
		links, err := dump(h.LinkList)
		if err != nil {
			return fmt.Errorf("list interfaces: %w", err)
		}
		for _, l := range links {
			if err := s.tidyLink(h, l); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", l.Attrs().Name, err))
			}
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

func (s *gates) tidyLink(h *netlink.Handle, l netlink.Link) error {
	x, err := readGate(h, l)
	program := max(x.programs[0], x.programs[1])
	if err != nil || program == 0 {
		return err
	}
	deadlines, err := deadlinesOf(program)
	if err != nil {
		return err
	}
	defer deadlines.Close()
	addrs, err := dump(func() ([]netlink.Addr, error) { return h.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	there := map[netip.Addr]bool{}
	for _, a := range addrs {
		if p, ok := addrPrefix(a); ok {
			there[p.Addr()] = true
		}
	}
	var key [16]byte
	var gone [][16]byte
	var until uint64
	for entries := deadlines.Iterate(); entries.Next(&key, &until); {
		if !there[netip.AddrFrom16(key).Unmap()] {
			gone = append(gone, key)
		}
	}
	for _, key := range gone {
		if err := deadlines.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	if emptyMap(deadlines) {
		return s.unhang(l.Attrs().Name)
	}
	return nil
}
