package journal

import "maps"

// saveCursor writes the cursor if it has moved, and syncs it if sync is set. A failure is logged
// and retried.
func (c *Consumer) saveCursor(sync bool) {
	c.saving.Lock()
	defer c.saving.Unlock()
	err := c.trySaveCursor(sync)
	switch {
	case err != nil && !c.saveFailed:
		c.j.log.Error("cannot save the cursor of a sink, retrying", "sink", c.name, "err", err)
	case err == nil && c.saveFailed:
		c.j.log.Info("cursor of a sink saved again", "sink", c.name)
	}
	c.saveFailed = err != nil
}

// trySaveCursor is called with c.saving held.
func (c *Consumer) trySaveCursor(sync bool) error {
	j := c.j
	j.mu.Lock()
	if c.removed {
		j.mu.Unlock()
		return nil
	}
	version, cursor := c.version, c.cursor
	if version != c.written {
		cursor.Positions = maps.Clone(cursor.Positions)
	}
	j.mu.Unlock()
	if version != c.written {
		if err := c.file.Write(cursor); err != nil {
			return err
		}
		c.written = version
	}
	if !sync || c.synced == version {
		return nil
	}
	if err := c.file.Sync(); err != nil {
		c.written = 0 // to be written again
		return err
	}
	c.synced = version
	j.mu.Lock()
	c.keepFrom = cursor.KeepFrom()
	j.mu.Unlock()
	return nil
}

// advance acknowledges the entries up to an offset and moves the cursor. It reports whether the
// cursor has moved. Journal.mu is held.
func (c *Consumer) advance(offset uint64) bool {
	next := c.inflight.acknowledge(offset, c.cursor.Positions)
	if next == 0 {
		return false
	}
	c.cursor.Offset = max(c.cursor.Offset, next)
	if d := c.cursor.Dropped; d != nil && c.cursor.Offset >= d.Until {
		c.cursor.Dropped = nil
	}
	c.version++
	return true
}
