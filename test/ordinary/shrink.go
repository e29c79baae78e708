package ordinary

// Shrink returns a sequence that still fails and is as short as could be found, by delta debugging (Zeller and Hildebrandt): it leaves
// out halves, then quarters and so on, and keeps what fails. What is left out may make later operations senseless, which are left
// out too. It tries no more than budget sequences, for each costs time on a cluster.
func Shrink(q Sequence, budget int, fails func(Sequence) bool) Sequence {
	tried := map[string]bool{q.Encode(): true}
	parts := 2
	for len(q) > 1 && budget > 0 {
		shorter, ok := without(q, parts, tried, &budget, fails)
		switch {
		case ok:
			q, parts = shorter, max(parts-1, 2)
		case parts >= len(q):
			return q
		default:
			parts = min(2*parts, len(q))
		}
	}
	return q
}

// without leaves out each of so many parts in turn, the last first: what comes after a failure has no share in it.
func without(q Sequence, parts int, tried map[string]bool, budget *int, fails func(Sequence) bool) (Sequence, bool) {
	for i := parts - 1; i >= 0; i-- {
		from, to := i*len(q)/parts, (i+1)*len(q)/parts
		rest := append(append(Sequence{}, q[:from]...), q[to:]...).Sensible()
		if len(rest) == 0 || len(rest) == len(q) || tried[rest.Encode()] {
			continue
		}
		if *budget == 0 {
			return nil, false
		}
		tried[rest.Encode()] = true
		*budget--
		if fails(rest) {
			return rest, true
		}
	}
	return nil, false
}
