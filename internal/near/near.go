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
// wrong, or two that have changed places. From 6 letters on, up to 3 may be missing or too many at the end. What has
// more than 64 is near nothing.
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

// longest is how many letters a word may have that is compared.
const longest = 64

// distance is the number of slips between given and word; false when they are too many.
func distance(given, word string) (int, bool) {
	letters := utf8.RuneCountInString(given)
	if letters < 3 || letters > longest {
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
	for i := range len(a) - 1 {
		if a[:i]+a[i+1:i+2]+a[i:i+1]+a[i+2:] == b {
			return true
		}
	}
	return false
}
