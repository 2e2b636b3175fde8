// How does a message become a datagram that only this cluster's nodes can make and read? Sealing and opening as in
// docs/design.md section 8, and the replay window. Pure: the session id, the time and the secrets are handed in. Whose
// session counts is decided in seal_session.go. Nothing here may ever use a nonce twice under one key: a sealer's
// session id must be random and new for each process, and its counter only grows.

package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

const (
	maxDatagram = 1200
	headerSize  = 32
	tagSize     = 16
	wireVersion = 1
	secretSize  = 32
	maxKeys     = 2 // in the key file; each datagram goes out once for each

	datagramInfo = "hactl datagram v1"
	streamInfo   = "hactl stream v1"
	clusterInfo  = "hactl cluster v1"
)

// unopened says why a datagram was not taken. The text is what the operator reads, and the counter's name.
type unopened string

func (u unopened) Error() string { return string(u) }

const (
	errTruncated    unopened = "truncated"
	errNotOurs      unopened = "not a hactl datagram"
	errNewerVersion unopened = "newer protocol version"
	errUnknownKey   unopened = "sealed with a key that is not in the key file"
	errOtherCluster unopened = "from another cluster with the same key"
	errForged       unopened = "forged or damaged"
	errReplayed     unopened = "replayed"

	// These opened, and were refused all the same.
	errMalformed     unopened = "malformed"
	errUnknownSender unopened = "from a node that is not in the config"
	errOwnName       unopened = "in the name of this node"
	errLooped        unopened = "this node's own, sent back by the network"
	errOtherSession  unopened = "for an earlier run of this node"
	errUnconfirmed   unopened = "from a run of the peer that has not answered yet"
	errTwin          unopened = "from a second node of the same name"
	errKind          unopened = "of an unknown kind"
)

// secret is one line of the key file.
type secret [secretSize]byte

// id names a secret without telling it.
func (s secret) id() uint32 {
	sum := sha256.Sum256(s[:])
	return binary.BigEndian.Uint32(sum[:4])
}

// keyName is how people see a key id.
func keyName(id uint32) string {
	return hex.EncodeToString(binary.BigEndian.AppendUint32(nil, id))
}

// clusterTag tells clusters that share a key file apart, so that the operator hears "another cluster" and not
// "forged". One byte: two names in 256 share one, and then it is "forged". It protects nothing; the key does, which
// the cluster's name goes into.
func (s secret) clusterTag(cluster string) byte {
	b := append([]byte(clusterInfo), s[:]...)
	sum := sha256.Sum256(append(b, cluster...))
	return sum[0]
}

// keyFacts are what follows from a secret and is asked for with every datagram.
type keyFacts struct {
	secret secret
	id     uint32
	tag    byte
}

// keyRing remembers them for the few secrets that a process meets.
type keyRing struct {
	cluster string
	facts   []keyFacts
}

func (r *keyRing) of(key secret) keyFacts {
	for i := range r.facts {
		if r.facts[i].secret == key {
			return r.facts[i]
		}
	}
	f := keyFacts{key, key.id(), key.clusterTag(r.cluster)}
	r.facts = append(r.facts, f)
	if len(r.facts) > 2*maxKeys {
		r.facts = r.facts[1:]
	}
	return f
}

// aead is the cipher for a secret, salted so that no two sessions or streams share a key.
func (s secret) aead(salt []byte, info string) cipher.AEAD {
	key, err := hkdf.Key(sha256.New, s[:], salt, info, 32)
	if err != nil {
		panic("hkdf: " + err.Error()) // only for a length that SHA-256 cannot give
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("aes: " + err.Error()) // only for a wrong key length
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic("gcm: " + err.Error()) // only for a wrong block size
	}
	return gcm
}

// nonce of a counter: zeros and the counter.
func nonce(in *[12]byte, counter uint64) []byte {
	binary.BigEndian.PutUint64(in[4:], counter)
	return in[:]
}

// sessionID is random for each process start.
type sessionID [16]byte

// short is how messages name a session.
func (s sessionID) short() uint64 { return binary.BigEndian.Uint64(s[:8]) }

// message is what is sealed.
type message struct {
	Kind     messageKind
	Sender   string
	Receiver uint64 // first 8 bytes of the receiver's session; 0: to all
	Serial   uint64 // the same for all copies of a message
	Body     []byte
}

// keyedAEAD is a session's cipher for one key of the file.
type keyedAEAD struct {
	id   uint32
	aead cipher.AEAD
}

// sealer makes the datagrams of one session.
type sealer struct {
	session sessionID
	ring    keyRing
	counter uint64
	ciphers []keyedAEAD // for keys used so far, at most maxKeys
	plain   []byte      // and
	nonce   [12]byte    // are for one call, and save the next one memory
}

func newSealer(session sessionID, cluster string) *sealer {
	return &sealer{session: session, ring: keyRing{cluster: cluster}}
}

// seal never repeats a counter, whatever the key. It is for the caller to see that the result fits.
func (s *sealer) seal(key secret, m message) []byte {
	s.counter++
	facts := s.ring.of(key)
	b := make([]byte, 0, headerSize+sealedSize(m)+tagSize)
	b = append(b, 'H', 'A', wireVersion, facts.tag)
	b = binary.BigEndian.AppendUint32(b, facts.id)
	b = append(b, s.session[:]...)
	b = binary.BigEndian.AppendUint64(b, s.counter)

	plain := appendName(append(s.plain[:0], byte(m.Kind)), m.Sender)
	plain = binary.BigEndian.AppendUint64(plain, m.Receiver)
	plain = binary.BigEndian.AppendUint64(plain, m.Serial)
	plain = append(plain, m.Body...)
	s.plain = plain
	return s.cipher(facts).Seal(b, nonce(&s.nonce, s.counter), plain, b)
}

func sealedSize(m message) int { return 1 + 1 + len(m.Sender) + 8 + 8 + len(m.Body) }

// fitsDatagram: otherwise the message goes over the stream.
func fitsDatagram(m message) bool { return headerSize+sealedSize(m)+tagSize <= maxDatagram }

func (s *sealer) cipher(key keyFacts) cipher.AEAD {
	for _, c := range s.ciphers {
		if c.id == key.id {
			return c.aead
		}
	}
	c := keyedAEAD{key.id, key.secret.aead(s.session[:], datagramInfo+s.ring.cluster)}
	s.ciphers = append(s.ciphers, c)
	if len(s.ciphers) > maxKeys {
		s.ciphers = s.ciphers[1:]
	}
	return c.aead
}

// header is the clear part of a datagram.
type header struct {
	Tag     byte
	Key     uint32
	Session sessionID
	Counter uint64
}

func parseHeader(b []byte) (header, error) {
	if len(b) >= 2 && (b[0] != 'H' || b[1] != 'A') {
		return header{}, errNotOurs
	}
	if len(b) >= 3 && b[2] > wireVersion {
		return header{}, errNewerVersion
	}
	if len(b) >= 3 && b[2] < wireVersion {
		return header{}, errNotOurs
	}
	if len(b) < headerSize+tagSize {
		return header{}, errTruncated
	}
	h := header{Tag: b[3], Key: binary.BigEndian.Uint32(b[4:]), Counter: binary.BigEndian.Uint64(b[24:])}
	copy(h.Session[:], b[8:24])
	return h, nil
}

// parseMessage reads what was sealed. The body keeps pointing into b.
func parseMessage(b []byte) (message, error) {
	r := reader{rest: b}
	m := message{Kind: messageKind(r.u8()), Sender: r.name(), Receiver: r.u64(), Serial: r.u64()}
	if r.err != nil {
		return message{}, errMalformed
	}
	m.Body = r.rest
	return m, nil
}

// window says which of the last windowSize numbers were seen: RFC 6479's ring of words, in which moving on clears
// whole words instead of shifting bits. Numbers start at 1.
type window struct {
	top  uint64
	bits [windowWords]uint64
}

const (
	windowSize  = 1024
	windowWords = 32 // a power of two, above windowSize/64 + 1: the word that is being entered is never still in use
)

// fresh is whether a number is new and not too old to tell.
func (w *window) fresh(n uint64) bool {
	if n > w.top {
		return true
	}
	if n == 0 || w.top-n >= windowSize {
		return false
	}
	return w.bits[n/64%windowWords]&(1<<(n%64)) == 0
}

// take marks a number; false if it was not fresh.
func (w *window) take(n uint64) bool {
	if !w.fresh(n) {
		return false
	}
	if n > w.top {
		first, last := w.top/64+1, n/64
		if last >= first+windowWords {
			first = last - windowWords + 1
		}
		for i := first; i <= last; i++ {
			w.bits[i%windowWords] = 0
		}
		w.top = n
	}
	w.bits[n/64%windowWords] |= 1 << (n % 64)
	return true
}
