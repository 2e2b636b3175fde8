// How do I copy my data while the site is up? The command `backup`; what it does is in backup.go.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func backupCommand() *cli.Command {
	return &cli.Command{
		Name:      "backup",
		Category:  categorySteer,
		Usage:     "copy a group's data from a node that does not run it",
		ArgsUsage: "GROUP [COMMAND]...",
		UsageText: "hactl backup GROUP -- COMMAND ARGUMENTS; hactl backup GROUP --image FILE",
		Description: `For data on DRBD whose disks are on LVM. Takes a snapshot of the disk below DRBD on this node, lets a
command have it or copies it, and removes it, whatever has become of that. What is in it is what a
power cut at that moment would have left: a database finds all that it has committed.

A COMMAND runs in a folder where the group's file systems are mounted, read only, as on their owner;
HACTL_BACKUP is that folder. --image copies the disk as it is instead.

  hactl backup web -- tar -czf /root/web.tgz .
  hactl backup web --image - | ssh vault 'cat >web.img'

Run it on a node that has a whole copy and does not run the group; --on-owner says that the owner
shall be slowed down. While the backup goes on, SIZE may be written to the group (20% of the disk if
not given); a backup whose snapshot was full before it ended is refused.

Exit status: 0 done, 1 it failed or the command did, 3 no daemon answers, 64 wrong use.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "size", Value: "20%", Usage: "room for what is written meanwhile: `SIZE` as 20% (of the disk), 512M or 2G"},
			&cli.StringFlag{Name: "image", Usage: "copy the disk itself to `FILE`; -: to stdout"},
			&cli.BoolFlag{Name: "on-owner", Usage: "also where the group runs"},
		},
		Action: func(c *cli.Context) error {
			group, command, image := c.Args().First(), c.Args().Tail(), c.String("image")
			if (len(command) == 0) == (image == "") {
				return wrongUse("hactl backup "+group+" -- COMMAND ARGUMENTS, or hactl backup "+group+" --image FILE", "what shall become of the data? either a command or --image")
			}
			p := &backupPlan{group: group, root: filepath.Join(filepath.Dir(c.String("socket")), "backup", group)}
			var err error
			if p.fraction, p.size, err = parseRoom(c.String("size")); err != nil {
				return err
			}
			cl := newClient(c)
			st, err := cl.status(c.Context)
			if err != nil {
				return err
			}
			if err := st.checkGroup(group, ""); err != nil {
				return err
			}
			answer, err := runningConfig(c.Context, cl)
			if err != nil {
				return err
			}
			if os.Geteuid() != 0 {
				return &hintError{"only root may make a snapshot", "sudo hactl backup " + group, exitDenied}
			}
			g := answer.Effective.group(group)
			replicas, err := localReplicas(c.Context, g)
			if err == nil {
				err = mayBackUp(group, replicas, c.Bool("on-owner"))
			}
			if err == nil {
				p.disks, err = findBackupDisks(c.Context, runToEnd, g)
			}
			if err != nil {
				return err
			}
			if image != "" && len(p.disks) != 1 {
				return &hintError{fmt.Sprintf("%s has %d disks, and --image copies one", group, len(p.disks)), "hactl backup " + group + " -- COMMAND", exitError}
			}
			if err := p.checkRoom(); err != nil {
				return err
			}
			return p.backUp(c, command, image)
		},
	}
}

// parseRoom reads 20%, 512M or 2G.
func parseRoom(text string) (fraction float64, bytes uint64, err error) {
	bad := wrongUse("--size 20%, 512M or 2G", "%q is no size", text)
	if number, ok := strings.CutSuffix(text, "%"); ok {
		f, err := strconv.ParseFloat(number, 64)
		if err != nil || !(f > 0 && f <= 100) {
			return 0, 0, bad
		}
		return f / 100, 0, nil
	}
	units := map[byte]uint64{'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}
	if text == "" || units[text[len(text)-1]] == 0 {
		return 0, 0, bad
	}
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
	if err != nil || n == 0 {
		return 0, 0, bad
	}
	return 0, n * units[text[len(text)-1]], nil
}

// backUp holds a lock, so that what is there of a snapshot when it begins is nobody's any more.
func (p *backupPlan) backUp(c *cli.Context, command []string, image string) error {
	lock, err := os.OpenFile(filepath.Join(filepath.Dir(c.String("socket")), "backup-"+p.group+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return &hintError{fmt.Sprintf("another backup of %s is going on", p.group), "again when it is done", exitError}
	}
	begun := time.Now()
	b := &backupRun{backupPlan: p, run: runToEnd, say: func(format string, args ...any) { fmt.Fprintf(c.App.ErrWriter, format+"\n", args...) }}
	part := image + ".part" // the file is there whole and good, or not at all
	use := func(ctx context.Context) error { return b.runCommand(ctx, c, command) }
	switch image {
	case "":
	case "-":
		use = func(ctx context.Context) error { return b.copyTo(ctx, c.App.Writer) }
	default:
		use = func(ctx context.Context) error { return b.copyToFile(ctx, part) }
	}
	err = b.take(c.Context, image == "", use)
	if image != "" && image != "-" {
		if err == nil {
			err = os.Rename(part, image)
		} else {
			_ = os.Remove(part)
		}
	}
	if err != nil {
		return err
	}
	b.say("done after %s", shortTime(time.Since(begun)))
	return nil
}

// runCommand lets the operator's own program have the files. ^C goes to it as well, from the terminal.
func (b *backupRun) runCommand(ctx context.Context, c *cli.Context, command []string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Env = b.root, append(os.Environ(), "HACTL_BACKUP="+b.root)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.App.Reader, c.App.Writer, c.App.ErrWriter
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return &hintError{fmt.Sprintf("%s: %v", command[0], err), "what the command has written stays where it is, and is no backup", exitError}
	}
	return nil
}

func (b *backupRun) copyTo(ctx context.Context, to io.Writer) error {
	d := &b.disks[0]
	from, err := os.Open(b.device(d))
	if err != nil {
		return err
	}
	defer from.Close()
	return copyImage(ctx, from, to, d.bytes, func(done uint64) { b.say("%s of %s", byteText(done), byteText(d.bytes)) })
}

func (b *backupRun) copyToFile(ctx context.Context, name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err = b.copyTo(ctx, f); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
