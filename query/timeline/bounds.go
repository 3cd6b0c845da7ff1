package timeline

import "time"

// compact joins rows with longer and longer pauses until there are fewer.
func (f *Folder) compact() {
	for range 32 {
		if f.rowCount <= maxRows*3/4 || f.rowCount <= len(f.rows) {
			return
		}
		f.pause *= 2
		f.join(f.pause, nil)
	}
}

// join joins rows of a key that are apart by at most a pause, unless apart says otherwise.
func (f *Folder) join(pause time.Duration, apart func(a, b *row) bool) {
	f.rowCount = 0
	for key, rows := range f.rows {
		joined := rows[:1]
		for _, r := range rows[1:] {
			last := joined[len(joined)-1]
			if r.first.Sub(last.last) <= pause && (apart == nil || !apart(last, r)) {
				last.merge(r)
			} else {
				joined = append(joined, r)
			}
		}
		clear(rows[len(joined):])
		f.rows[key] = joined
		f.rowCount += len(joined)
	}
}

// thin halves the kept Events of the rows that have most.
func (f *Folder) thin() {
	f.thinned++
	for f.kept > MaxEvents*3/4 || f.keptBytes > maxKeptBytes*3/4 {
		most := 0
		for _, rows := range f.rows {
			for _, r := range rows {
				most = max(most, len(r.kept))
			}
		}
		if most <= 1 {
			return
		}
		f.kept, f.keptBytes = 0, 0
		for _, rows := range f.rows {
			for _, r := range rows {
				if len(r.kept) > most/2 {
					r.thin()
				}
				f.kept += len(r.kept)
				for _, e := range r.kept {
					f.keptBytes += e.size()
				}
			}
		}
	}
}
