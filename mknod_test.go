package main

import "golang.org/x/sys/unix"

// mknodBlock makes a device node; it needs no device behind it.
func mknodBlock(path string, major, minor uint32) error {
	return unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor)))
}
