// How is a group's data copied while it is written to? On a node that only holds a copy of it: LVM keeps the disk below DRBD as it
// is at one moment, that is mounted or read, and let go again. What is there is what a power cut at that moment would have left.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// backupPlan is what a backup of a group takes on this node.
type backupPlan struct {
	group    string
	root     string // folder under which the file systems are mounted as on the owner
	disks    []backupDisk
	fraction float64 // of a disk, that may be written while it goes on
	size     uint64  // the same in bytes; 0: by fraction
}

// backupDisk is the disk below one volume of DRBD.
type backupDisk struct {
	resource string
	volume   int
	minor    int
	path     string // of the logical volume
	vg, lv   string
	bytes    uint64
	free     uint64 // in the volume group
	thin     bool   // its snapshots need no room of their own
	fs       *ResourceConfig
}

const (
	backupFraction = 0.2 // of the disk
	backupLeast    = 16 << 20
	backupTidy     = 30 * time.Second // for letting go what a backup holds, also when it was interrupted
)

// snapshot is the name of what keeps the disk as it is. It is this group's alone, so what a killed backup has left is known.
func (p *backupPlan) snapshot(d *backupDisk) string {
	return fmt.Sprintf("hactl-backup-%s-%s-%d", p.group, d.resource, d.volume)
}

func (p *backupPlan) device(d *backupDisk) string { return "/dev/" + d.vg + "/" + p.snapshot(d) }

// room is how much may be written to the disk until its snapshot is full.
func (p *backupPlan) room(d *backupDisk) uint64 {
	if p.size > 0 {
		return p.size
	}
	return max(backupLeast, uint64(float64(d.bytes)*p.fraction))
}

// localReplicas are the DRBD resources of a group as this node's kernel has them.
func localReplicas(ctx context.Context, g *GroupConfig) ([]*Replica, error) {
	var out []*Replica
	for _, r := range g.Resources {
		if r.Type != "drbd" {
			continue
		}
		d, err := newDRBD(r, resourceEnv{Group: g.Name, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, err
		}
		c, err := d.(replicated).Copies(ctx)
		if err != nil {
			return nil, err
		}
		if c.Replica == nil {
			return nil, &hintError{fmt.Sprintf("%s is not set up here", r.Resource), "hactl status; drbdadm status", exitError}
		}
		out = append(out, c.Replica)
	}
	return out, nil
}

// mayBackUp is why this node should not back the group up now. The owner is left in peace unless it is asked for by name.
func mayBackUp(group string, replicas []*Replica, onOwner bool) error {
	if len(replicas) == 0 {
		return &hintError{fmt.Sprintf("%s has no drbd, so no other node has a copy of its data", group), "back it up where it runs, by its own means", exitError}
	}
	for _, d := range replicas {
		switch {
		case d.Role == string(drbdPrimary) && !onOwner:
			return &hintError{fmt.Sprintf("%s is written to here, and a snapshot slows that down", d.Resource), "run it on another node of the group, or add --on-owner", exitError}
		case d.Role != string(drbdPrimary) && !slices.ContainsFunc(d.Peers, func(p ReplicaPeer) bool { return p.Connection == string(connConnected) }):
			return &hintError{fmt.Sprintf("%s is not connected here, so what is here may be old", d.Resource), "hactl status", exitError}
		case slices.ContainsFunc(d.Volumes, func(v ReplicaDisk) bool { return v.Disk != string(diskUpToDate) }):
			return &hintError{fmt.Sprintf("this node's copy of %s is not complete", d.Resource), "hactl status --watch, until it is; or run it on another node", exitError}
		}
	}
	return nil
}

// backingDisks are the disks below DRBD's volumes, by minor, as `drbdsetup show` has them.
func backingDisks(options []drbdOption) map[int]string {
	out := map[int]string{}
	minor := -1
	for _, o := range options {
		switch {
		case o.key == "device":
			_, number, ok := strings.Cut(o.value, "minor")
			n, err := strconv.Atoi(strings.TrimSpace(number))
			if minor = -1; ok && err == nil {
				minor = n
			}
		case o.key == "disk" && minor >= 0 && strings.HasPrefix(o.value, "/"):
			out[minor] = o.value
		}
	}
	return out
}

// findBackupDisks looks below each DRBD resource of the group.
func findBackupDisks(ctx context.Context, run commandRunner, g *GroupConfig) ([]backupDisk, error) {
	var out []backupDisk
	for _, r := range g.Resources {
		if r.Type != "drbd" {
			continue
		}
		text, err := run(ctx, "drbdsetup", "show", "--show-defaults", r.Resource)
		if err != nil {
			return nil, err
		}
		options, err := parseDRBDShow(text)
		if err != nil {
			return nil, err
		}
		below := backingDisks(options)
		if len(below) == 0 {
			return nil, &hintError{fmt.Sprintf("%s has no disk here", r.Resource), "drbdadm status " + r.Resource, exitError}
		}
		for i, minor := range slices.Sorted(maps.Keys(below)) {
			d := backupDisk{resource: r.Resource, volume: i, minor: minor, path: below[minor]}
			if err := d.askLVM(ctx, run); err != nil {
				return nil, err
			}
			d.fs = g.mountedOn(minor, r.Resource)
			out = append(out, d)
		}
	}
	return out, nil
}

// mountedOn is the file system of a group on a DRBD device, nil if there is none.
func (g *GroupConfig) mountedOn(minor int, resource string) *ResourceConfig {
	for i := range g.Resources {
		r := &g.Resources[i]
		named := strings.HasPrefix(r.Device, "/dev/drbd/by-res/"+resource+"/")
		if r.Type == "filesystem" && (r.Device == fmt.Sprintf("/dev/drbd%d", minor) || named && mayBeOf(r.Device, resource)) {
			return r
		}
	}
	return nil
}

// askLVM finds the logical volume, its size and the room in its volume group.
func (d *backupDisk) askLVM(ctx context.Context, run commandRunner) error {
	out, err := run(ctx, "lvs", "--noheadings", "--nosuffix", "--units", "b", "--separator", "|", "-o", "vg_name,lv_name,lv_size,vg_free,lv_attr", d.path)
	if err != nil {
		return &hintError{fmt.Sprintf("the disk of %s, %s, is no logical volume that LVM knows: %v", d.resource, d.path, err),
			"a backup beside the owner needs DRBD's disk on LVM; else back it up where it runs, by its own means", exitError}
	}
	words := strings.Split(strings.TrimSpace(out), "|")
	if len(words) != 5 || words[4] == "" {
		return fmt.Errorf("read lvs of %s: %q", d.path, out)
	}
	d.vg, d.lv, d.thin = words[0], words[1], words[4][0] == 'V'
	if d.bytes, err = strconv.ParseUint(words[2], 10, 64); err == nil {
		d.free, err = strconv.ParseUint(words[3], 10, 64)
	}
	if err != nil {
		return fmt.Errorf("read lvs of %s: %w", d.path, err)
	}
	return nil
}

// checkRoom is said before anything is made.
func (p *backupPlan) checkRoom() error {
	needs, free := map[string]uint64{}, map[string]uint64{}
	for i := range p.disks {
		if d := &p.disks[i]; !d.thin {
			needs[d.vg] += p.room(d)
			free[d.vg] = d.free
		}
	}
	for vg, n := range needs {
		if n > free[vg] {
			return &hintError{fmt.Sprintf("volume group %s has %s free, and the snapshot is to have %s", vg, byteText(free[vg]), byteText(n)),
				fmt.Sprintf("--size with less, which is what may be written until the backup is done; or give %s room: vgextend", vg), exitError}
		}
	}
	return nil
}

// backupRun is one backup on its way.
type backupRun struct {
	*backupPlan
	run commandRunner
	say func(format string, args ...any)
}

// take makes the snapshots, hands them over, and lets them go whatever becomes of it. What was read from a snapshot that was
// full before is no backup.
func (b *backupRun) take(ctx context.Context, mount bool, use func(ctx context.Context) error) (err error) {
	defer func() {
		tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), backupTidy)
		defer cancel()
		if left := b.clear(tidy); left != nil {
			err = errors.Join(err, &hintError{fmt.Sprintf("the snapshot cannot be removed, and fills up: %v", left), "lvs; lvremove " + b.device(&b.disks[0]), exitError})
		}
	}()
	if err := b.clear(ctx); err != nil { // of one that was killed
		return fmt.Errorf("remove what a backup before has left: %w", err)
	}
	for i := range b.disks {
		d := &b.disks[i]
		args := []string{"--snapshot", "--name", b.snapshot(d)}
		if d.thin {
			args = append(args, "--setactivationskip", "n")
		} else {
			args = append(args, "--size", fmt.Sprintf("%db", b.room(d)/512*512))
		}
		if _, err := b.run(ctx, "lvcreate", append(args, d.vg+"/"+d.lv)...); err != nil {
			return fmt.Errorf("make a snapshot of %s: %w", d.path, err)
		}
		b.say("%s volume %d: %s is kept as it is now", d.resource, d.volume, d.path)
	}
	if mount {
		if err := b.mount(ctx); err != nil {
			return err
		}
	}
	if err := use(ctx); err != nil {
		return err
	}
	return b.checkFull(ctx)
}

// mount puts the file systems where the owner has them, below root. A journal is replayed into the snapshot.
func (b *backupRun) mount(ctx context.Context) error {
	mounted := 0
	for i := range b.disks {
		d := &b.disks[i]
		if d.fs == nil {
			continue
		}
		at := filepath.Join(b.root, d.fs.Directory)
		if err := os.MkdirAll(at, 0o700); err != nil {
			return err
		}
		options := "ro"
		if d.fs.FSType == "xfs" {
			options += ",nouuid"
		}
		if _, err := b.run(ctx, "mount", "-t", d.fs.FSType, "-o", options, b.device(d), at); err != nil {
			return fmt.Errorf("mount the snapshot of %s: %w", d.path, err)
		}
		mounted++
	}
	if mounted == 0 {
		return &hintError{b.group + " has no file system on DRBD to mount", "hactl backup " + b.group + " --image FILE", exitError}
	}
	return nil
}

// checkFull: a snapshot that has no room left for what is written is invalid from then on.
func (b *backupRun) checkFull(ctx context.Context) error {
	for i := range b.disks {
		d := &b.disks[i]
		if d.thin {
			continue
		}
		out, err := b.run(ctx, "lvs", "--noheadings", "--separator", "|", "-o", "lv_attr,snap_percent", d.vg+"/"+b.snapshot(d))
		if err != nil {
			return fmt.Errorf("look whether the snapshot of %s is still good: %w", d.path, err)
		}
		attr, percent, ok := strings.Cut(strings.TrimSpace(out), "|")
		if !ok || len(attr) < 5 {
			return fmt.Errorf("read lvs of %s: %q", b.snapshot(d), out)
		}
		if attr[4] == 'I' || attr[4] == 'S' || percent == "100.00" {
			return &hintError{fmt.Sprintf("the snapshot of %s was full before the backup was done: what was read is not good", d.path),
				"again with more room: --size", exitError}
		}
		b.say("%s volume %d: %s%% of the snapshot's room was used", d.resource, d.volume, percent)
	}
	return nil
}

// clear lets go what a backup of this group holds; nothing where there is nothing.
func (b *backupRun) clear(ctx context.Context) error {
	var errs []error
	for i := len(b.disks) - 1; i >= 0; i-- {
		d := &b.disks[i]
		if d.fs != nil {
			at := filepath.Join(b.root, d.fs.Directory)
			if _, err := b.run(ctx, "mountpoint", "-q", at); err == nil {
				if _, err := b.run(ctx, "umount", at); err != nil {
					errs = append(errs, err)
					continue
				}
			}
		}
		out, err := b.run(ctx, "lvs", "--noheadings", "-o", "lv_name", "--select", "lv_name="+b.snapshot(d), d.vg)
		if err != nil {
			errs = append(errs, err)
		} else if strings.TrimSpace(out) != "" {
			if _, err := b.run(ctx, "lvremove", "--yes", d.vg+"/"+b.snapshot(d)); err != nil {
				errs = append(errs, err)
			}
		}
	}
	for i := range b.disks {
		if d := &b.disks[i]; d.fs != nil { // folders that are empty; others stay
			for at := filepath.Join(b.root, d.fs.Directory); len(at) >= len(b.root) && os.Remove(at) == nil; {
				at = filepath.Dir(at)
			}
		}
	}
	return errors.Join(errs...)
}

// copyImage streams a disk, and says how far it is.
func copyImage(ctx context.Context, from io.Reader, to io.Writer, total uint64, said func(done uint64)) error {
	block := make([]byte, 1<<20)
	done, next := uint64(0), total/10
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := from.Read(block)
		if n > 0 {
			if _, err := to.Write(block[:n]); err != nil {
				return err
			}
			if done += uint64(n); done >= next && total > 0 {
				said(done)
				next += total / 10
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if done != total {
		return fmt.Errorf("the disk has %d bytes, and %d were read", total, done)
	}
	return nil
}

// byteText is for people.
func byteText(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i, x := 0, float64(n)
	for ; x >= 1024 && i < len(units)-1; i++ {
		x /= 1024
	}
	return strconv.FormatFloat(math.Round(x*10)/10, 'f', -1, 64) + " " + units[i]
}
