package timeline

// story returns the lines of a page with at most limit lines about what happened (0: all rows), and
// the rows that are in none of them.
func (t *Timeline) story(limit int) (story []Line, left []int) {
	lines, usual, left := t.digest(limit)
	for i := range lines {
		story = append(story, t.told(&lines[i]))
	}
	for i := range usual {
		usual[i].usual = true
		story = append(story, t.told(&usual[i]))
	}
	return story, left
}

// told returns a line in words.
func (t *Timeline) told(l *line) Line {
	told := Line{
		First: l.First, Last: l.Last, Reason: l.Reason, Routine: l.Routine, Trouble: l.trouble(), Gap: l.Gap,
		What: t.what(l), Message: l.Message, Usual: l.usual, Rows: l.rows,
	}
	switch {
	case l.Routine != "":
		told.Message = steps(l.Steps)
	case l.Reason == reasonPreempted:
		told.Message = "" // it is part of What
	}
	if l.usual {
		told.Every = l.rate()
	}
	return told
}

// untold returns the rows that are not in the story.
func (t *Timeline) untold() (left []int) {
	told := make([]bool, len(t.Rows))
	for _, l := range t.Story {
		for _, i := range l.Rows {
			told[i] = true
		}
	}
	for i := range told {
		if !told[i] {
			left = append(left, i)
		}
	}
	return left
}
