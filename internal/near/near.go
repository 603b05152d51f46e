// Package near finds the word that somebody meant: for flags, variables, ids and every other word of a closed set. A
// suggestion that is far off misleads more than none, so there is one only when little is different.
package near

import (
	"strings"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
)

// abbreviated is how many letters an abbreviation may lack at its end, as ADDR does of ADDRESS.
const abbreviated = 3

// Word returns the word of known that given is a slip of; of several the nearest, and of those the first. It is false
// when none is near. Upper and lower case are the same.
//
// Near is what differs by one letter where given has 3 to 5, by two where it has more: a letter too many, too few or
// wrong, or two that have changed places. From 6 letters on, up to 3 may be missing or too many at the end.
func Word(given string, known []string) (string, bool) {
	given = strings.ToUpper(given)
	best, least := "", abbreviated+1
	for _, word := range known {
		if d, slip := distance(given, strings.ToUpper(word)); slip && d < least {
			best, least = word, d
		}
	}
	return best, best != ""
}

// Hint is what an error about given ends with: ", did you mean WORD?", or nothing when no word of known is near.
func Hint(given string, known []string) string {
	if word, found := Word(given, known); found {
		return ", did you mean " + word + "?"
	}
	return ""
}

// distance is the number of slips between given and word; false when they are too many.
func distance(given, word string) (int, bool) {
	letters := utf8.RuneCountInString(given)
	more := utf8.RuneCountInString(word) - letters
	if letters < 3 || max(more, -more) > abbreviated {
		return 0, false
	}
	limit := 1
	if letters > 5 {
		limit = 2
		if strings.HasPrefix(word, given) || strings.HasPrefix(given, word) {
			limit = abbreviated
		}
	}
	d := levenshtein.ComputeDistance(given, word)
	if d == 2 && swapped(given, word) {
		d = 1
	}
	return d, d <= limit
}

// swapped says whether a and b differ in two neighbours that have changed places.
func swapped(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	return i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
}
