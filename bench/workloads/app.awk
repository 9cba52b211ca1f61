# SPDX-License-Identifier: Apache-2.0
# awk: fields, associative arrays and string functions over a text.
FNR > 40000 { nextfile }
{
	for (i = 1; i <= NF; i++) {
		w = tolower($i)
		gsub(/[^a-z]/, "", w)
		count[w]++
		bytes += length(w)
	}
	if (match($0, /[aeiou][aeiou]+/))
		runs += RLENGTH
}
END {
	for (w in count) {
		kinds++
		if (count[w] > best || (count[w] == best && w < name)) {
			best = count[w]
			name = w
		}
	}
	print kinds, bytes, runs, name, best
}
