# bash completion of srt-ns
_srt_ns() {
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
        --share) kinds=(value) ;;
        --uid) kinds=(value) ;;
        --gid) kinds=(value) ;;
        --hostname) kinds=(value) ;;
        --relay) kinds=(value) ;;
        --publish) kinds=(file) ;;
        --sidecar) kinds=(value) ;;
        --kill-after) kinds=(value) ;;
        --lifetime-fd) kinds=(value) ;;
        --placeholder) kinds=(file) ;;
        --status-fd) kinds=(value) ;;
        --keep-fd) kinds=(value) ;;
        esac
        if ((i + ${#kinds[@]} >= cword)); then
            [[ ${kinds[cword - i - 1]} == file ]] && _filedir
            return
        fi
        ((i += 1 + ${#kinds[@]}))
    done
    mapfile -t COMPREPLY < <(compgen -W '--share --uid --gid --hostname --allow-userns --keep-admin --relay --publish --sidecar --keep-session --outlive-parent --as-pid-1 --wait-all --kill-after --lifetime-fd --placeholder --check --status-fd --keep-fd --help --version --' -- "$cur")
} && complete -F _srt_ns srt-ns
