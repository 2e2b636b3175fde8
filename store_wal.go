// What do the bytes of the raft folder mean? Frames with checksums, segments of the log made of them, and how a folder's
// files are read back into one state. It must not guess: a tail that a crash can leave is cut off, anything else that
// does not verify is corrupt, because a voter that forgot a vote or an entry must not go on under its name.
//
// A frame is what one fsync made durable. The next one is written only after that, so only the last frame of the last
// segment can be torn. It is torn when the file ends inside it, or when a whole disk sector of it is zero: file systems
// grow a file before they write it. Each frame begins and ends with a byte that is not zero, and its content is text and
// protobuf, so that an intact frame has no zero sector. A wrong checksum without one is not the work of a crash.

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	frameBegin  = 0xA7
	frameEnd    = 0x7A
	frameHeader = 14 // begin, kind, length, CRC-32C of these six, CRC-32C of the payload
	frameMax    = 1 << 30
	sectorSize  = 512

	kindSegment  = 1 // first frame of a segment
	kindBatch    = 2
	kindSnapshot = 3 // the only frame of the snapshot file

	recordHardState = 1
	recordEntry     = 2
	recordHeader    = 5 // kind, length

	segmentPrefix = "log-"
	snapshotName  = "snapshot"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type frame struct {
	kind    byte
	payload []byte
}

func appendFrame(to []byte, kind byte, payload []byte) []byte {
	at := len(to)
	to = append(to, frameBegin, kind)
	to = binary.LittleEndian.AppendUint32(to, uint32(len(payload)))
	to = binary.LittleEndian.AppendUint32(to, crc32.Checksum(to[at:], castagnoli))
	to = binary.LittleEndian.AppendUint32(to, crc32.Checksum(payload, castagnoli))
	to = append(to, payload...)
	return append(to, frameEnd)
}

// scanFrames reads frames up to a torn tail; valid is where that begins, or the end. An error means corrupt.
func scanFrames(data []byte) (frames []frame, valid int, err error) {
	for valid < len(data) {
		f, size, err := readFrame(data[valid:])
		if err != nil {
			if tornAt(data, valid) {
				return frames, valid, nil
			}
			return frames, valid, fmt.Errorf("frame at byte %d: %w", valid, err)
		}
		frames = append(frames, f)
		valid += size
	}
	return frames, valid, nil
}

// readFrame gives the size of the frame as far as its header can be trusted, else 0.
func readFrame(data []byte) (f frame, size int, err error) {
	if len(data) < frameHeader {
		return f, 0, errors.New("header is cut off")
	}
	if data[0] != frameBegin || binary.LittleEndian.Uint32(data[6:]) != crc32.Checksum(data[:6], castagnoli) {
		return f, 0, errors.New("wrong checksum of its header")
	}
	length := binary.LittleEndian.Uint32(data[2:])
	if length > frameMax {
		return f, 0, fmt.Errorf("length %d is out of range", length)
	}
	size = frameHeader + int(length) + 1
	if len(data) < size {
		return f, size, errors.New("payload is cut off")
	}
	payload := data[frameHeader : size-1]
	if data[size-1] != frameEnd || binary.LittleEndian.Uint32(data[10:]) != crc32.Checksum(payload, castagnoli) {
		return f, size, errors.New("wrong checksum")
	}
	return frame{kind: data[1], payload: payload}, size, nil
}

// tornAt says whether a crash while the frame at off was written can have left these bytes.
func tornAt(data []byte, off int) bool {
	rest := data[off:]
	if len(rest) < frameHeader || allZero(rest) {
		return true
	}
	_, size, _ := readFrame(rest)
	if size == 0 {
		// The header itself may lie across two sectors of which the second was never written.
		next := sectorSize - off%sectorSize
		return next < frameHeader && allZero(rest[next:])
	}
	if size > len(rest) {
		return true
	}
	if !allZero(rest[size:]) {
		return false // a later frame was begun, so this one had been durable
	}
	for begin := off; begin < off+size; {
		end := min(begin-begin%sectorSize+sectorSize, off+size)
		if allZero(data[begin:end]) {
			return true
		}
		begin = end
	}
	return false
}

func allZero(b []byte) bool {
	return len(bytes.TrimLeft(b, "\x00")) == 0
}

// segmentHeader is the first frame of a segment. A segment begins at a snapshot (Prev is 0), or goes on where the first
// PrevLength bytes of segment Prev end, because writing there has failed.
type segmentHeader struct {
	Number, Prev, PrevLength uint64
}

func (h segmentHeader) frame() []byte {
	var b []byte
	for _, v := range []uint64{h.Number, h.Prev, h.PrevLength} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return appendFrame(nil, kindSegment, b)
}

// batchFrame holds all that one fsync makes durable.
func batchFrame(writes []write) []byte {
	var b []byte
	put := func(kind byte, data []byte) {
		b = append(b, kind)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
		b = append(b, data...)
	}
	for _, w := range writes {
		if w.HardState != nil {
			put(recordHardState, w.HardState)
		}
		for _, e := range w.Entries {
			put(recordEntry, e)
		}
	}
	return appendFrame(nil, kindBatch, b)
}

// readBatch turns a frame's payload back into the writes' sum.
func readBatch(payload []byte) ([]write, error) {
	var out []write
	for len(payload) > 0 {
		if len(payload) < recordHeader {
			return nil, errors.New("record header is cut off")
		}
		kind, length := payload[0], int(binary.LittleEndian.Uint32(payload[1:]))
		payload = payload[recordHeader:]
		if length > len(payload) {
			return nil, errors.New("record is cut off")
		}
		data := payload[:length:length]
		payload = payload[length:]
		switch kind {
		case recordHardState:
			out = append(out, write{HardState: data})
		case recordEntry:
			out = append(out, write{Entries: [][]byte{data}})
		default:
			return nil, fmt.Errorf("record of kind %d is not known to this version", kind)
		}
	}
	return out, nil
}

// snapshotFrame names the segment with which the log goes on: the rename of this one file switches both.
func snapshotFrame(segment uint64, snapshot []byte) []byte {
	return appendFrame(nil, kindSnapshot, append(binary.LittleEndian.AppendUint64(nil, segment), snapshot...))
}

func readSnapshot(data []byte) (segment uint64, snapshot []byte, err error) {
	f, size, err := readFrame(data)
	if err != nil {
		return 0, nil, err
	}
	if f.kind != kindSnapshot || size != len(data) || len(f.payload) < 8 {
		return 0, nil, errors.New("not one snapshot frame")
	}
	return binary.LittleEndian.Uint64(f.payload), f.payload[8:], nil
}

// segment is a file of the log as it was read.
type segment struct {
	header segmentHeader
	data   []byte
}

// loaded is what a raft folder holds, and where its log goes on.
type loaded struct {
	state  restored
	number uint64 // of the last segment
	valid  int64  // its length without a torn tail
	torn   int64  // bytes of that tail
	newest uint64 // highest segment number in use, also by leftovers
}

// loadFolder reads a raft folder and changes nothing in it. An error means corrupt, unless it wraps a *fs.PathError:
// then the disk could not be read.
func loadFolder(dir string) (*loaded, error) {
	out := &loaded{number: 1}
	data, err := os.ReadFile(filepath.Join(dir, snapshotName))
	switch {
	case err == nil:
		var snap []byte
		if out.number, snap, err = readSnapshot(data); err != nil {
			return nil, fmt.Errorf("read %s: %w", snapshotName, err)
		}
		if err := out.state.apply(write{Snapshot: snap}); err != nil {
			return nil, fmt.Errorf("read %s: %w", snapshotName, err)
		}
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	segments, newest, err := readSegments(dir, out.number)
	if err != nil {
		return nil, err
	}
	out.newest = newest
	if err := out.follow(segments); err != nil {
		return nil, err
	}
	if err := out.state.check(); err != nil {
		return nil, fmt.Errorf("check log: %w", err)
	}
	return out, nil
}

// readSegments reads those from first on, and drops what a crash left before its first fsync.
func readSegments(dir string, first uint64) (out []segment, newest uint64, err error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, 0, err
	}
	for _, entry := range names {
		number, ok := segmentNumber(entry.Name())
		if !ok {
			continue
		}
		newest = max(newest, number)
		if number < first {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, 0, err
		}
		f, _, err := readFrame(data)
		if err != nil && number != first && tornAt(data, 0) {
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read %s: %w", entry.Name(), err)
		}
		if f.kind != kindSegment || len(f.payload) != 24 || binary.LittleEndian.Uint64(f.payload) != number {
			return nil, 0, fmt.Errorf("read %s: does not begin with its own number", entry.Name())
		}
		out = append(out, segment{data: data, header: segmentHeader{
			Number: number, Prev: binary.LittleEndian.Uint64(f.payload[8:]), PrevLength: binary.LittleEndian.Uint64(f.payload[16:])}})
	}
	slices.SortFunc(out, func(a, b segment) int { return int(int64(a.header.Number) - int64(b.header.Number)) })
	return out, newest, nil
}

// follow replays the chain of segments that begins with l.number.
func (l *loaded) follow(segments []segment) error {
	at := slices.IndexFunc(segments, func(s segment) bool { return s.header.Number == l.number && s.header.Prev == 0 })
	if at < 0 {
		return fmt.Errorf("segment %d is missing", l.number)
	}
	for current := &segments[at]; current != nil; {
		var next *segment
		for i := range segments {
			// Of several that go on from here only the last try can have succeeded.
			if s := &segments[i]; s.header.Prev == current.header.Number && s.header.Number > current.header.Number {
				next = s
			}
		}
		data := current.data
		if next != nil {
			if next.header.PrevLength > uint64(len(data)) {
				return fmt.Errorf("segment %d is shorter than %d bytes", current.header.Number, next.header.PrevLength)
			}
			data = data[:next.header.PrevLength]
		}
		valid, err := l.replay(data)
		if err == nil && next != nil && valid != len(data) {
			err = fmt.Errorf("ends at byte %d instead of %d", valid, len(data))
		}
		if err != nil {
			return fmt.Errorf("segment %d: %w", current.header.Number, err)
		}
		l.number, l.valid, l.torn = current.header.Number, int64(valid), int64(len(data)-valid)
		current = next
	}
	return nil
}

func (l *loaded) replay(data []byte) (valid int, err error) {
	frames, valid, err := scanFrames(data)
	if err != nil {
		return 0, err
	}
	for _, f := range frames[1:] {
		if f.kind != kindBatch {
			return 0, fmt.Errorf("frame of kind %d in the log", f.kind)
		}
		writes, err := readBatch(f.payload)
		if err != nil {
			return 0, err
		}
		for _, w := range writes {
			if err := l.state.apply(w); err != nil {
				return 0, err
			}
		}
	}
	return valid, nil
}

func segmentName(number uint64) string { return fmt.Sprintf("%s%08d", segmentPrefix, number) }

func segmentNumber(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, segmentPrefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	return n, err == nil && n > 0
}
