// In what state is a DRBD resource, and is that well? Asks the tools of 9 or 8.4 and /proc/drbd, and judges for the
// monitor. It changes nothing.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// loaded says whether the kernel module is there; without it nothing can be Primary.
func (d *drbd) loaded() bool {
	for _, path := range []string{d.proc + "/drbd", d.sys + "/module/drbd"} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

// read is the resource as the kernel has it now; nil: it is not set up. JSON is asked for first (9), then events,
// which 8.4 has too.
func (d *drbd) read(ctx context.Context) (*drbdStatus, error) {
	if !d.loaded() {
		return nil, nil
	}
	var list []drbdStatus
	old := d.version84()
	if !old {
		out, err := d.run(ctx, "drbdsetup", "status", "--json")
		if err == nil {
			list, err = parseDRBDJSON(out)
		} else if strings.Contains(tailOf(err), "unrecognized option") {
			old = true
		}
		if err != nil && !old {
			return nil, fmt.Errorf("read state of %s: %w", d.name, err)
		}
	}
	if old {
		out, err := d.run(ctx, "drbdsetup", "events2", "--now", "--statistics")
		if err != nil {
			return d.readWords(ctx, err)
		}
		if list, err = parseDRBDEvents(out); err != nil {
			return nil, fmt.Errorf("read state of %s: %w", d.name, err)
		}
	}
	for i := range list {
		if list[i].Name == d.name {
			d.fillProgress(&list[i])
			return &list[i], nil
		}
	}
	return nil, nil
}

// version84 reads the version without a fork. In doubt it is 9, which the refusal of --json corrects.
func (d *drbd) version84() bool {
	for _, path := range []string{d.sys + "/module/drbd/version", d.proc + "/drbd"} {
		b, err := os.ReadFile(path)
		if err == nil {
			return strings.HasPrefix(strings.TrimPrefix(string(b), "version: "), "8.")
		}
	}
	return false
}

// readWords is the way for tools so old that they have no events2.
func (d *drbd) readWords(ctx context.Context, cause error) (*drbdStatus, error) {
	var out [3]string
	for i, command := range []string{"role", "cstate", "dstate"} {
		var err error
		if out[i], err = d.run(ctx, "drbdadm", command, d.name); err != nil {
			if t := tailOf(err); i == 0 && (strings.Contains(t, "unknown minor") || strings.Contains(t, "No such resource")) {
				return nil, nil
			}
			return nil, fmt.Errorf("read state of %s: %w", d.name, errors.Join(cause, err))
		}
	}
	s, err := parseDRBDWords(d.name, out[0], out[1], out[2])
	if err != nil {
		return nil, fmt.Errorf("read state of %s: %w", d.name, err)
	}
	return &s, nil
}

// fillProgress takes the percentages of 8.4 from /proc/drbd: events2 has none, and what is out of sync says little of
// a sync of only a part, and nothing of a verify.
func (d *drbd) fillProgress(s *drbdStatus) {
	if len(s.Peers) != 1 {
		return
	}
	b, err := os.ReadFile(d.proc + "/drbd")
	if err != nil {
		return
	}
	p, err := parseProcDRBD(string(b))
	if err != nil {
		return
	}
	for i := range s.Peers[0].Volumes {
		v := &s.Peers[0].Volumes[i]
		m := p.minor(s.volumeOrZero(v.Number).Minor)
		if m != nil && m.Done >= 0 && v.Replication == m.Replication {
			v.Done, v.Left = m.Done, m.Left
		}
	}
}

// health is what a monitor says of a resource that is configured. frozenByFencing is apart: DRBD waits for its
// handler, which mends it or not, and a stop would only hang in the frozen I/O.
func (s *drbdStatus) health() (c condition, frozenByFencing bool, err error) {
	switch s.Role {
	case drbdSecondary:
		return conditionStopped, false, nil
	case drbdPrimary:
	default:
		return conditionUnknown, false, fmt.Errorf("role %q of %s is not known to this version: see drbdadm status %s", s.Role, s.Name, s.Name)
	}
	switch s.Suspended {
	case "", "fencing":
	case "user":
		return conditionFailed, false, fmt.Errorf("I/O of %s was frozen by an operator: drbdadm resume-io %s", s.Name, s.Name)
	case "no-data":
		return conditionFailed, false, fmt.Errorf("I/O of %s is frozen: neither its own disk nor a peer has the data; connect a peer: drbdadm connect %s", s.Name, s.Name)
	case "quorum":
		return conditionFailed, false, fmt.Errorf("I/O of %s is frozen: DRBD has lost its quorum; connect a peer: drbdadm connect %s", s.Name, s.Name)
	default:
		return conditionFailed, false, fmt.Errorf("I/O of %s is frozen (%s): see drbdadm status %s", s.Name, s.Suspended, s.Name)
	}
	for _, v := range s.Volumes {
		if c, err := s.healthOf(v); err != nil {
			return c, false, err
		}
	}
	if len(s.Volumes) == 0 {
		return conditionUnknown, false, fmt.Errorf("%s is Primary but tells of no volume: see drbdadm status %s", s.Name, s.Name)
	}
	return conditionRunning, s.Suspended == "fencing", nil
}

func (s *drbdStatus) healthOf(v drbdVolume) (condition, error) {
	name := s.volumeName(v.Number)
	switch v.Disk {
	case diskUpToDate, diskConsistent, diskAttaching, diskNegotiating:
	case diskDiskless, diskFailed, diskDetaching, diskInconsistent, diskOutdated:
		if s.reachable(v.Number) == nil {
			return conditionFailed, fmt.Errorf("%s is Primary with a disk that is %s and no connected peer has good data: see dmesg, "+
				"then drbdadm attach %s or drbdadm connect %s", name, v.Disk, s.Name, s.Name)
		}
	default:
		return conditionUnknown, fmt.Errorf("disk state %q of %s is not known to this version: see drbdadm status %s", v.Disk, name, s.Name)
	}
	if v.NoQuorum {
		return conditionFailed, fmt.Errorf("%s has lost DRBD's quorum, so it refuses I/O: connect a peer (drbdadm connect %s)", name, s.Name)
	}
	return conditionRunning, nil
}
