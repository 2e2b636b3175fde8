package main

import (
	"bytes"
	"testing"
)

func TestScanFrames(t *testing.T) {
	one := appendFrame(nil, kindBatch, []byte("one"))
	big := appendFrame(nil, kindBatch, bytes.Repeat([]byte("big"), 700))
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 0x40
		return b
	}
	hole := func(b []byte, from, to int) []byte {
		b = bytes.Clone(b)
		clear(b[from:to])
		return b
	}
	for _, tc := range []struct {
		name    string
		data    []byte
		frames  int
		valid   int
		corrupt bool
	}{
		{"nothing", nil, 0, 0, false},
		{"two", cat(one, big), 2, len(one) + len(big), false},
		{"header cut", cat(one, big[:5]), 1, len(one), false},
		{"payload cut", cat(one, big[:900]), 1, len(one), false},
		{"end byte cut", cat(one, big[:len(big)-1]), 1, len(one), false},
		{"zeros after", cat(one, make([]byte, 3000)), 1, len(one), false},
		{"a sector of zeros in the last", cat(one, hole(big, 1024-len(one), 1536-len(one))), 1, len(one), false},
		{"the last sector of zeros", cat(one, hole(big, 2048-len(one), len(big))), 1, len(one), false},
		{"header over two sectors, the second zero", cat(make0(505), hole(big, 7, len(big))), 1, 505, false},
		{"a sector of zeros, but a frame after it", cat(one, hole(big, 1024-len(one), 1536-len(one)), one), 1, len(one), true},
		{"less than a sector of zeros", cat(one, hole(big, 1024-len(one), 1530-len(one))), 1, len(one), true},
		{"bit in the last payload", cat(one, flip(big, 600)), 1, len(one), true},
		{"bit in the last header", cat(one, flip(big, 3)), 1, len(one), true},
		{"bit in the length of a small last one", flip(one, 3), 0, 0, true},
		{"bit in the first", cat(flip(one, 15), big), 0, 0, true},
		{"bit in the end byte", flip(one, len(one)-1), 0, 0, true},
		{"garbage", []byte("this is no log at all"), 0, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			frames, valid, err := scanFrames(tc.data)
			if len(frames) != tc.frames || valid != tc.valid || tc.corrupt != (err != nil) {
				t.Errorf("%d frames to byte %d, %v; want %d to %d, corrupt=%v", len(frames), valid, err, tc.frames, tc.valid, tc.corrupt)
			}
		})
	}
}

// make0 is a frame of exactly n bytes.
func make0(n int) []byte {
	return appendFrame(nil, kindBatch, bytes.Repeat([]byte("x"), n-frameHeader-1))
}

// FuzzWAL: any bytes are read without a panic, what is read is what was written, and a prefix of a good log is never
// taken for corrupt.
func FuzzWAL(f *testing.F) {
	good := segmentHeader{Number: 1}.frame()
	good = append(good, batchFrame([]write{{HardState: testHard(1, 2, 0), Entries: [][]byte{[]byte("a"), []byte("bc")}}})...)
	f.Add(good, 9)
	f.Add(append(good, make([]byte, 600)...), 40)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		frames, valid, err := scanFrames(data)
		if valid > len(data) {
			t.Fatalf("valid to %d of %d", valid, len(data))
		}
		var again []byte
		for _, f := range frames {
			again = appendFrame(again, f.kind, f.payload)
			writes, err := readBatch(f.payload)
			if err == nil && f.kind == kindBatch && !bytes.Equal(batchFrame(writes), appendFrame(nil, kindBatch, f.payload)) {
				t.Fatal("a batch does not read back as it was written")
			}
		}
		if !bytes.Equal(again, data[:valid]) {
			t.Fatal("frames do not read back as they were written")
		}
		if _, _, err := readSnapshot(data); err == nil && len(frames) != 1 {
			t.Fatal("a snapshot that is not one frame")
		}
		if err == nil && cut >= 0 && cut < valid {
			if _, part, err := scanFrames(data[:cut]); err != nil || part > cut {
				t.Fatalf("cut at %d of %d: %d, %v", cut, valid, part, err)
			}
		}
	})
}
