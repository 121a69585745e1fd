package affinity

import "testing"

// The vectors are those of the reference implementation: key 00 to 0f, input 00, 01, 02 ... of the length given.
func TestSipHash(t *testing.T) {
	var k [16]byte
	for i := range k {
		k[i] = byte(i)
	}
	s := secretOf(k)
	var in [64]byte
	for i := range in {
		in[i] = byte(i)
	}
	for n, want := range map[int]uint64{
		0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 7: 0xab0200f58b01d137, 8: 0x93f5f5799a932462, 15: 0xa129ca6149be45e5,
	} {
		if got := s.sum(in[:n]); got != want {
			t.Errorf("%d bytes: %#x, want %#x", n, got, want)
		}
	}
}
