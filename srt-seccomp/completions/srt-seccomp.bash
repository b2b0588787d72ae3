# bash completion of srt-seccomp
_srt_seccomp() {
    local cur prev words cword i=1 kinds
    _init_completion -n =: || return
    while ((i < cword)); do
        kinds=()
        case ${words[i]} in
        --)
            # Its place in COMP_WORDS, where bash has split the words at = and : too.
            local dashes=0 j
            for ((j = 1; j <= i; j++)); do [[ ${words[j]} == -- ]] && ((++dashes)); done
            for ((j = 1; j < ${#COMP_WORDS[@]}; j++)); do
                [[ ${COMP_WORDS[j]} == -- ]] && ((--dashes == 0)) && break
            done
            _command_offset $((j + 1))
            return
            ;;
        --deny) kinds=(value) ;;
        --allow) kinds=(value) ;;
        --load) kinds=(file) ;;
        --load-fd) kinds=(value) ;;
        --read) kinds=(file) ;;
        --write) kinds=(file) ;;
        --unix) kinds=(file) ;;
        --connect-tcp) kinds=(value) ;;
        --status-fd) kinds=(value) ;;
        --keep-fd) kinds=(value) ;;
        esac
        if ((i + ${#kinds[@]} >= cword)); then
            [[ ${kinds[cword - i - 1]} == file ]] && _filedir
            return
        fi
        ((i += 1 + ${#kinds[@]}))
    done
    mapfile -t COMPREPLY < <(compgen -W '--deny --allow --list --load --load-fd --landlock --read --write --unix --connect-tcp --export --status-fd --keep-fd --help --version --' -- "$cur")
} && complete -F _srt_seccomp srt-seccomp
