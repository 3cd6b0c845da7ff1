package journal

import "maps"

// lostWithMarks returns what has been dropped, if everything that was read and
// not acknowledged has to be read again. Journal.mu is held.
func (c *consumer) lostWithMarks() *stretch {
	lost := c.cursor.lost
	if lost == nil {
		return nil
	}
	missed := make(map[string]int)
	maps.Copy(missed, lost.missed)
	for i := range c.marks.len() {
		if m, _ := c.marks.at(i); m.offset >= lost.until {
			break
		}
		if source, n := c.marks.missed(i); n > 0 {
			missed[source] += n
		}
	}
	return &stretch{until: lost.until, positions: lost.positions, missed: missed}
}

// save writes the cursor if it has moved, and syncs it if asked to. What fails is
// logged and will be repeated.
func (c *consumer) save(sync bool) {
	c.saving.Lock()
	defer c.saving.Unlock()
	err := c.trySave(sync)
	switch {
	case err != nil && !c.failed:
		c.j.log.Error("the cursor of a consumer cannot be saved, will be tried again", "sink", c.name, "err", err)
	case err == nil && c.failed:
		c.j.log.Info("the cursor of a consumer can be saved again", "sink", c.name)
	}
	c.failed = err != nil
}

// trySave is save without the logging. The lock saving is held.
func (c *consumer) trySave(sync bool) error {
	j := c.j
	j.mu.Lock()
	if c.removed {
		j.mu.Unlock()
		return nil
	}
	snapshot := cursor{offset: c.cursor.offset, positions: c.cursor.positions, lost: c.lostWithMarks()}
	version, held := c.version, snapshot.held()
	var content []byte
	var err error
	if version != c.written {
		content, err = encodeCursor(c.name, snapshot)
	}
	j.mu.Unlock()
	if err != nil {
		return err
	}
	if content != nil {
		if err := c.file.write(content); err != nil {
			return err
		}
		c.written = version
	}
	if !sync || c.synced == version {
		return nil
	}
	if err := c.file.sync(); err != nil {
		c.written = 0 // it has to be written again, into a new file
		return err
	}
	c.synced = version
	j.mu.Lock()
	c.durable = held
	j.mu.Unlock()
	return nil
}
