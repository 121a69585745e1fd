package strategy

import "lb/upstream"

// maxTurns bounds the memory of a schedule. Weights whose cycle would be longer are scaled down to it, which changes
// a share by less than n/maxTurns.
const maxTurns = 1 << 14

// schedule is one cycle of smooth weighted round robin: indices into ready, each as often as its weight says, and
// spread out rather than in runs. (nginx's algorithm, ngx_http_upstream_get_peer, run once when the set changes
// instead of at every request: each turn all credits grow by their weight, and the largest pays for all.)
func schedule(ready []*upstream.Backend) []int32 {
	w := make([]int, len(ready))
	sum, div := 0, 0
	for i, b := range ready {
		w[i] = b.Weight
		sum += w[i]
		div = gcd(div, w[i])
	}
	if sum/div > maxTurns {
		for i := range w {
			w[i] = max(1, int(float64(w[i])/float64(sum)*maxTurns+.5))
		}
		div = 1
	}
	sum = 0
	for i := range w {
		w[i] /= div
		sum += w[i]
	}
	turns := make([]int32, sum)
	credit := make([]int, len(ready))
	for t := range turns {
		best := 0
		for i := range credit {
			if credit[i] += w[i]; credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= sum
		turns[t] = int32(best)
	}
	return turns
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// strides are the step widths that visit all of n places. Scans take a different one each time: if they all went the
// same way round, the neighbour of a busy backend would get its share too.
func strides(n int) []int32 {
	s := []int32{1}
	for d := 2; d < n && len(s) < 64; d++ {
		if gcd(d, n) == 1 {
			s = append(s, int32(d))
		}
	}
	return s
}

// inverse is 1/weight relative to the mean weight: what one request adds to a backend's load.
func inverse(ready []*upstream.Backend) []float64 {
	sum := 0.
	for _, b := range ready {
		sum += float64(b.Weight)
	}
	inv := make([]float64, len(ready))
	for i, b := range ready {
		inv[i] = sum / float64(len(ready)) / float64(b.Weight)
	}
	return inv
}
