# SPDX-License-Identifier: Apache-2.0
# bash completion for skerry: words come from the program's own help.

_skerry()
{
	local cur=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} words
	local bin=${COMP_WORDS[0]}

	if [ "$COMP_CWORD" = 1 ]; then
		words=$("$bin" help | awk '/^  [a-z]/ {print $1}')
	elif [ "$verb" = image ] && [ "$COMP_CWORD" = 2 ]; then
		words="build list delete import create info check map resize convert commit rebase diff"
	elif [ "$verb" = image ]; then
		verb=${COMP_WORDS[2]}
		case $verb in
		build) words="debian/12 debian/13" ;;
		delete) words=$("$bin" image list | awk 'NR > 1 {print $1}') ;;
		esac
	elif [ "$verb" = snapshot ] && [ "$COMP_CWORD" = 2 ]; then
		words="create list restore delete diff check"
	elif [ "$verb" = snapshot ] && [ "$COMP_CWORD" = 3 ]; then
		words=$("$bin" list | awk 'NR > 1 {print $1}')
	elif [ "$verb" = snapshot ]; then
		words=$("$bin" snapshot list "${COMP_WORDS[3]}" |
			awk 'NR > 1 {print $2}')
	else
		case $verb in
		run|launch)
			words=$("$bin" image list | awk 'NR > 1 {print $1}') ;;
		info|exec|shell|console|stop|delete|suspend|resume|fork|clone)
			words=$("$bin" list | awk 'NR > 1 {print $1}') ;;
		esac
	fi
	if [ "${cur#-}" != "$cur" ]; then
		words=$("$bin" help "$verb" | awk '/^  --?[a-z]/ {print $1}')
		[ "$verb" = delete ] && words=--force
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	[ ${#COMPREPLY[@]} -gt 0 ] ||
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
}
complete -F _skerry skerry
