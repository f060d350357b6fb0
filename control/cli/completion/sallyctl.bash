# bash completion for sallyctl: every candidate comes from `sallyctl __complete`.
_sallyctl() {
    local line word description current=${COMP_WORDS[COMP_CWORD]} files=no
    local -a words
    # bash takes `--opt=value` apart at the `=`; put it together again
    local IFS=$' \t\n' whole=${COMP_LINE:0:COMP_POINT}
    words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    if [[ $current == "=" || ${COMP_WORDS[COMP_CWORD - 1]} == "=" ]]; then
        [[ $current == "=" ]] && current=
        words=()
        for word in $whole; do words+=("$word"); done
        words=("${words[@]:1}")
    fi
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == ":files" ]]; then
            files=yes
            continue
        fi
        word=${line%%$'\t'*}
        [[ $current != *=* && $word == *=* && $whole == *=* ]] && word=${word#*=}
        COMPREPLY+=("$word")
    done < <("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null)
    if [[ $files == yes ]]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$current")
    fi
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -F _sallyctl sallyctl
